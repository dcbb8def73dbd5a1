//! What goes into an entry comes out of it; any changed byte is noticed; arbitrary bytes never panic.

use super::*;
use crate::memory::ChunkWriter;
use proptest::prelude::*;

const IDENTITY: Identity = Identity {
    journal: 77,
    shard: 3,
};

fn header(sequence: u64) -> EntryHeader {
    EntryHeader {
        identity: IDENTITY,
        life: 5,
        sequence,
        oldest_live: 1,
        completed: sequence.saturating_sub(1),
        length: 0,
        staged: 0,
        items: 0,
        previous: 9,
        checksum: 0,
    }
}

/// A body at a position, with its chunk laid out as the segment's blocks are.
fn large(position: u32, length: usize, fill: u8) -> (Vec<u8>, Vec<AlignedSlice>) {
    let body: Vec<u8> = (0..length).map(|i| fill ^ (i % 251) as u8).collect();
    let ragged = position as usize % BLOCK_BYTES;
    let mut chunk = ChunkWriter::with_capacity(ragged + length);
    chunk.append_zeros(ragged);
    chunk.append(&body);
    let (_, whole, _) = cut(position, length);
    let blocks = if whole.is_empty() {
        Vec::new()
    } else {
        vec![
            chunk
                .chunk()
                .blocks(ragged + whole.start..ragged + whole.end),
        ]
    };
    (body, blocks)
}

fn append(position: u32, length: usize, base_offset: i64) -> Item {
    Item::Append {
        topic_id: TopicId([7; 16]),
        partition: 2,
        leader_epoch: 4,
        base_offset,
        last_offset: base_offset + 9,
        segment_base: 100,
        position,
        length: length as u32,
    }
}

fn build(bodies: &[(u32, usize)]) -> (Vec<u8>, EntryHeader, Vec<Vec<u8>>) {
    let mut builder = EntryBuilder::new(MemoryPool::new(1 << 20));
    let mut expected = Vec::new();
    for (i, &(position, length)) in bodies.iter().enumerate() {
        let (body, blocks) = large(position, length, i as u8);
        let limit = builder.size_with(length);
        let split = length / 3;
        builder.push(
            &append(position, length, i as i64 * 10),
            &[&body[..split], &body[split..]],
            blocks,
        );
        assert!(builder.size() <= limit);
        expected.push(body);
    }
    builder.push(
        &Item::Truncate {
            topic_id: TopicId([1; 16]),
            partition: 1,
            offset: 5,
        },
        &[],
        [],
    );
    let (pieces, header) = builder.seal(header(12));
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.as_slice().to_vec())
        .collect();
    (bytes, header, expected)
}

proptest! {
    #[test]
    fn entries_round_trip(bodies in prop::collection::vec((0u32..100_000, 1usize..70_000), 0..12)) {
        let (mut bytes, sealed, expected) = build(&bodies);
        prop_assert_eq!(bytes.len(), sealed.length as usize);
        bytes.extend_from_slice(&[0xee; 4096]);
        let (header, items) = parse(&bytes, IDENTITY).expect("valid");
        prop_assert_eq!(header, sealed);
        prop_assert_eq!(items.len(), expected.len() + 1);
        for (read, body) in items.iter().zip(&expected) {
            let got: Vec<u8> = read.body().iter().flat_map(|range| bytes[range.clone()].to_vec()).collect();
            prop_assert!(&got == body);
        }
    }

    #[test]
    fn any_changed_byte_is_noticed(bodies in prop::collection::vec((0u32..9000, 1usize..40_000), 1..4), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut bytes, _, _) = build(&bodies);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(parse(&bytes, IDENTITY).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), items in any::<u32>(), length in 0u32..4) {
        if bytes.len() >= HEADER_BYTES {
            // A header that passes its own check over a body that is noise.
            let mut raw = encode_header(&EntryHeader { items, length: length * 4096, staged: 4096, ..header(1) });
            let end = bytes.len().min(length as usize * 4096).max(HEADER_BYTES);
            raw[CHECKSUM_AT..].fill(0);
            bytes[..HEADER_BYTES].copy_from_slice(&raw);
            let checksum = crate::batch::crc32c(&bytes[..end]);
            raw[CHECKSUM_AT..HEADER_CHECK_AT].copy_from_slice(&checksum.to_le_bytes());
            let check = crate::batch::crc32c(&raw[..HEADER_CHECK_AT]);
            raw[HEADER_CHECK_AT..].copy_from_slice(&check.to_le_bytes());
            bytes[..HEADER_BYTES].copy_from_slice(&raw);
        }
        let _ = parse(&bytes, IDENTITY);
    }
}

#[test]
fn another_journals_entry_is_not_ours() {
    let (bytes, _, _) = build(&[(0, 100)]);
    assert_eq!(
        parse(
            &bytes,
            Identity {
                journal: 78,
                shard: 3
            }
        )
        .map(|_| ()),
        Err(EntryError::NoHeader)
    );
    assert_eq!(
        parse(
            &bytes,
            Identity {
                journal: 77,
                shard: 2
            }
        )
        .map(|_| ()),
        Err(EntryError::NoHeader)
    );
}

#[test]
fn a_newer_format_is_named() {
    let (mut bytes, _, _) = build(&[(0, 100)]);
    bytes[8] = 9;
    let check = crate::batch::crc32c(&bytes[..HEADER_CHECK_AT]);
    bytes[HEADER_CHECK_AT..HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
    assert_eq!(
        parse(&bytes, IDENTITY).map(|_| ()),
        Err(EntryError::Format(9))
    );
}
