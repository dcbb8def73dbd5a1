//! Entries of the journal: header, items, bodies.
//!
//! An entry with any changed byte is refused, as is one of another journal; the items' bodies lie inside the entry, one after the
//! other; and an entry built of what was read reads the same.

use ringlog_engine::batch::crc32c;
use ringlog_engine::journal::entry::{
    EntryBuilder, EntryHeader, HEADER_BYTES, ITEM_BYTES, Identity, Item, LARGE_BODY_BYTES,
    ReadItem, cut, parse, parse_header,
};
use ringlog_engine::log::TopicId;
use ringlog_engine::memory::{AlignedBuffer, BLOCK_BYTES, MemoryPool};
use ringlog_net::arbitrary::Numbers;

use crate::{Choices, changed, memory};

const IDENTITY: Identity = Identity {
    journal: 77,
    shard: 3,
};
/// In an input's first byte: the entry is what the rest describes, with lengths and checksums that fit.
const SEALED: u8 = 1;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let [kind, blocks, change] = choices.take();
    let at = choices.below(usize::from(u16::MAX));
    let bytes = if kind & SEALED == 0 {
        choices.rest().to_vec()
    } else {
        sealed(usize::from(blocks), choices)
    };
    let header = parse_header(&bytes, IDENTITY);
    let parsed = memory::within(4 * bytes.len() + 1024, || parse(&bytes, IDENTITY));
    let Ok((read, items)) = parsed else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(&read));
    assert!(
        parse(
            &bytes,
            Identity {
                shard: 4,
                ..IDENTITY
            }
        )
        .is_err()
    );
    let entry = &bytes[..read.length as usize];
    let at = at * 67 % entry.len();
    assert!(
        parse(&changed(entry, at, change), IDENTITY).is_err(),
        "byte {at} was changed"
    );
    assert!(parse(&entry[..at], IDENTITY).is_err(), "cut at byte {at}");
    inside(entry, &read, &items);
    rebuilt(entry, &read, &items);
}

/// An entry of up to 12 blocks whose items are the rest of the input.
fn sealed(blocks: usize, mut choices: Choices<'_>) -> Vec<u8> {
    let staged = 1 + (blocks & 3);
    let length = staged + (blocks >> 2) % 9;
    let mut entry = vec![0; length * BLOCK_BYTES];
    entry[..8].copy_from_slice(b"ringlogJ");
    entry[8] = 1;
    entry[12..16].copy_from_slice(&IDENTITY.shard.to_le_bytes());
    entry[16..24].copy_from_slice(&IDENTITY.journal.to_le_bytes());
    let numbers: [u8; 32] = choices.take();
    entry[24..56].copy_from_slice(&numbers);
    entry[56..60].copy_from_slice(&((length * BLOCK_BYTES) as u32).to_le_bytes());
    entry[60..64].copy_from_slice(&((staged * BLOCK_BYTES) as u32).to_le_bytes());
    let [items] = choices.take();
    entry[64..68].copy_from_slice(&u32::from(items).to_le_bytes());
    let rest = choices.rest();
    let rest = &rest[..rest.len().min(entry.len() - HEADER_BYTES)];
    entry[HEADER_BYTES..HEADER_BYTES + rest.len()].copy_from_slice(rest);
    let checksum = crc32c(&entry);
    entry[72..76].copy_from_slice(&checksum.to_le_bytes());
    let check = crc32c(&entry[..76]);
    entry[76..80].copy_from_slice(&check.to_le_bytes());
    entry
}

/// Bodies lie where they belong and nowhere else.
fn inside(entry: &[u8], header: &EntryHeader, items: &[ReadItem]) {
    assert_eq!(items.len(), header.items as usize);
    let staged_end = header.staged as usize;
    let (mut staged, mut blocks) = (HEADER_BYTES, staged_end);
    for read in items {
        let (item, [head, whole, tail]) = (&read.item, read.body());
        staged += ITEM_BYTES;
        assert_eq!((head.start, head.end), (staged, tail.start));
        staged = tail.end;
        assert_eq!(whole.start, blocks);
        blocks = whole.end;
        let length = head.len() + whole.len() + tail.len();
        match item {
            Item::Append { length: said, .. } => assert_eq!(length, *said as usize),
            _ => assert_eq!(length, 0),
        }
        assert!(whole.is_empty() || length >= LARGE_BODY_BYTES);
    }
    assert!(staged <= staged_end && staged_end - staged < BLOCK_BYTES);
    assert_eq!(blocks, entry.len());
}

fn rebuilt(entry: &[u8], header: &EntryHeader, items: &[ReadItem]) {
    let mut builder = EntryBuilder::new(MemoryPool::new(0));
    for read in items {
        let pieces = read.body().map(|range| &entry[range]);
        let blocks = (!pieces[1].is_empty())
            .then(|| AlignedBuffer::copied_from(pieces[1]).into_aligned_slice());
        builder.push(&read.item, &pieces, blocks);
    }
    assert_eq!(builder.size(), entry.len());
    let (pieces, written) = builder.seal(*header);
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.as_slice())
        .copied()
        .collect();
    assert_eq!(bytes.len(), entry.len());
    let (read, again) = parse(&bytes, IDENTITY).expect("an entry that was built");
    assert_eq!(read, written);
    assert_eq!(again, items);
    assert_eq!(
        EntryHeader {
            checksum: 0,
            ..read
        },
        EntryHeader {
            checksum: 0,
            ..*header
        }
    );
}

/// Entries of every item, with small and large bodies: whole, and as the description that makes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(7);
    let topic_id = TopicId([7; 16]);
    let partition = 2;
    let others = [
        Item::Truncate {
            topic_id,
            partition,
            offset: 99,
        },
        Item::Delete {
            topic_id,
            partition,
        },
        Item::SetAside {
            topic_id,
            partition,
        },
        Item::Restate {
            topic_id,
            partition,
            truncated_to: -1,
            complete: true,
        },
        Item::LifeStart {
            previous_sequence: 41,
        },
        Item::Checkpoint,
    ];
    let mut seeds = Vec::new();
    for (number, &(position, length)) in
        [(0, 0), (61, 100), (4000, 5000), (0, 16_384), (100, 20_000)]
            .iter()
            .enumerate()
    {
        let mut builder = EntryBuilder::new(MemoryPool::new(0));
        let body = numbers.bytes(length);
        let append = Item::Append {
            topic_id,
            partition,
            leader_epoch: 4,
            base_offset: 1000,
            last_offset: 1009,
            segment_base: 100,
            position,
            length: length as u32,
        };
        let (_, whole, _) = cut(position, length);
        let blocks = (!whole.is_empty())
            .then(|| AlignedBuffer::copied_from(&body[whole]).into_aligned_slice());
        for other in &others[..number + 2] {
            builder.push(other, &[], None);
        }
        builder.push(&append, &[&body], blocks);
        let header = EntryHeader {
            identity: IDENTITY,
            life: 5,
            sequence: 42,
            oldest_live: 1,
            completed: 41,
            length: 0,
            staged: 0,
            items: 0,
            previous: 9,
            checksum: 0,
        };
        let (pieces, header) = builder.seal(header);
        let entry: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.as_slice())
            .copied()
            .collect();
        let (staged, whole) = (
            header.staged as usize,
            header.length as usize - header.staged as usize,
        );
        seeds.push([&[0, 0, 3, 1, 2], &entry[..]].concat());
        let blocks = (staged / BLOCK_BYTES - 1) as u8 | ((whole / BLOCK_BYTES) as u8) << 2;
        let items = [header.items as u8];
        // Bodies are random: only items and what lies between them need to be there.
        let described = &entry[HEADER_BYTES..staged.min(HEADER_BYTES + 1500)];
        seeds.push(
            [
                &[SEALED, blocks, 3, 1, 2],
                &entry[24..56],
                &items,
                described,
            ]
            .concat(),
        );
    }
    seeds
}
