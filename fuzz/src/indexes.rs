//! Offset, time and transaction indexes: files, what is kept in memory, and searches that read a file block by block.
//!
//! What decodes encodes to the same bytes without the zeros at the end; a search in the file finds what the one in memory finds,
//! in as few reads as it promises; a damaged file ends a search with an error.

use ringlog_engine::index::{
    ABORTED_ENTRY_BYTES, AbortedTransaction, OFFSET_ENTRY_BYTES, OffsetEntry, OffsetIndex,
    StoredEntry, StoredLookup, TIME_ENTRY_BYTES, TimeEntry, TimeIndex, TransactionIndex,
};
use ringlog_net::arbitrary::Numbers;

use crate::{Choices, memory};

/// In an input's first byte: the rest are distances between entries, so that the index is a valid one.
const GROWING: u8 = 0x80;
/// `segment.index.bytes`.
const BYTES_MAX: u32 = 1 << 20;
/// Bytes of the largest index made here: several blocks.
const FILE_BYTES: usize = 100_000;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = choices.byte();
    let base_offset = choices.from_zero();
    let target = i64::from_be_bytes(choices.take());
    let growing = choice & GROWING != 0;
    match choice & 3 {
        0 if growing => grown_offsets(base_offset, target, choices),
        0 => offsets(base_offset, target, choices.rest()),
        1 if growing => grown_times(base_offset, target, choices),
        1 => times(base_offset, target, choices.rest()),
        _ => transactions(target, choices.rest()),
    }
}

fn offsets(base_offset: i64, target: i64, bytes: &[u8]) {
    let decoded = memory::within(2 * bytes.len() + 64, || {
        OffsetIndex::decode(base_offset, BYTES_MAX, bytes)
    });
    let found = search::<OffsetEntry>(base_offset, target, bytes);
    let Ok(mut index) = decoded else {
        return;
    };
    without_zeros(&index.encode(), bytes, OFFSET_ENTRY_BYTES);
    if index.encode().len() == bytes.len() {
        assert_eq!(found, Some(index.lookup(target)));
    }
    assert!(index.lookup(target).offset <= target.max(base_offset));
    let entry = index.last();
    let _ = index.append(target, target as u32);
    if index.last() != entry {
        assert_eq!(index.lookup(target).offset, target);
    }
    let before = index.len();
    index.truncate_to(target);
    assert!(index.len() <= before && index.last().is_none_or(|last| last.offset < target));
}

fn grown_offsets(base_offset: i64, target: i64, mut steps: Choices<'_>) {
    let base_offset = base_offset >> 1;
    let mut index = OffsetIndex::new(base_offset, BYTES_MAX);
    let (mut offset, mut position) = (base_offset, 0_u32);
    while !steps.is_empty() && index.len() * OFFSET_ENTRY_BYTES < FILE_BYTES {
        let [by, bytes, times] = steps.take();
        for _ in 0..=times {
            offset += 1 + i64::from(by) * 99;
            position += 1 + u32::from(bytes) * 77;
            index.append(offset, position).expect("entries that grow");
        }
    }
    let bytes = index.encode();
    assert_eq!(
        OffsetIndex::decode(base_offset, BYTES_MAX, &bytes).as_ref(),
        Ok(&index)
    );
    for target in [
        target,
        near(target, base_offset, offset),
        offset,
        offset + 1,
        base_offset,
    ] {
        assert_eq!(
            search::<OffsetEntry>(base_offset, target, &bytes),
            Some(index.lookup(target)),
            "{target}"
        );
    }
}

fn times(base_offset: i64, target: i64, bytes: &[u8]) {
    let decoded = memory::within(2 * bytes.len() + 64, || {
        TimeIndex::decode(base_offset, BYTES_MAX, bytes)
    });
    let found = search::<TimeEntry>(base_offset, target, bytes);
    let Ok(mut index) = decoded else {
        return;
    };
    without_zeros(&index.encode(), bytes, TIME_ENTRY_BYTES);
    if index.encode().len() == bytes.len() {
        assert_eq!(found, Some(index.lookup(target)));
    }
    assert!(index.lookup(target).timestamp <= target.max(-1));
    let last = index.last();
    let _ = index.maybe_append(target, last.offset, true);
    assert!(index.last().timestamp >= last.timestamp);
    let before = index.len();
    index.truncate_to(target);
    assert!(index.len() <= before && (index.is_empty() || index.last().offset < target));
}

fn grown_times(base_offset: i64, target: i64, mut steps: Choices<'_>) {
    let base_offset = base_offset >> 1;
    let mut index = TimeIndex::new(base_offset, BYTES_MAX);
    let (mut timestamp, mut offset) = (-1, base_offset);
    while !steps.is_empty() && index.len() * TIME_ENTRY_BYTES < FILE_BYTES {
        let [by, offsets, times] = steps.take();
        for _ in 0..=times {
            timestamp += 1 + i64::from(by) * 1000;
            offset += i64::from(offsets) * 55;
            index
                .maybe_append(timestamp, offset, false)
                .expect("entries that grow");
        }
    }
    let bytes = index.encode();
    // An entry of zeros is one of a preallocated file, even where it is the only one.
    if timestamp > 0 || index.is_empty() {
        assert_eq!(
            TimeIndex::decode(base_offset, BYTES_MAX, &bytes).as_ref(),
            Ok(&index)
        );
    }
    for target in [
        target,
        near(target, -1, timestamp),
        timestamp,
        timestamp + 1,
        -1,
    ] {
        assert_eq!(
            search::<TimeEntry>(base_offset, target, &bytes),
            Some(index.lookup(target)),
            "{target}"
        );
    }
}

fn transactions(target: i64, bytes: &[u8]) {
    let Ok(mut index) = memory::within(2 * bytes.len() + 64, || TransactionIndex::decode(bytes))
    else {
        return;
    };
    assert_eq!(index.encode(), bytes);
    let to = target.saturating_add(1000);
    let expected = index
        .entries()
        .iter()
        .filter(|entry| entry.last_offset >= target && entry.first_offset < to);
    assert!(index.overlapping(target, to).eq(expected));
    index.truncate_to(target);
    assert!(
        index
            .entries()
            .iter()
            .all(|entry| entry.last_offset < target)
    );
    assert_eq!(TransactionIndex::decode(&index.encode()), Ok(index));
}

/// Some number between two.
fn near(target: i64, low: i64, high: i64) -> i64 {
    low + target.rem_euclid(high - low + 2)
}

fn without_zeros(encoded: &[u8], bytes: &[u8], entry_bytes: usize) {
    let (kept, zeros) = bytes.split_at(encoded.len());
    assert_eq!(encoded, kept);
    assert!(zeros.len().is_multiple_of(entry_bytes) && zeros.iter().all(|byte| *byte == 0));
}

/// What a search in a file finds; none where the file is damaged.
fn search<E: StoredEntry>(base_offset: i64, target: i64, bytes: &[u8]) -> Option<E> {
    let mut search = StoredLookup::<E>::new(base_offset, bytes.len() as u64, target).ok()?;
    let blocks = bytes.len().div_ceil(E::BLOCK_BYTES);
    let mut reads = 0;
    while let Some(read) = search.next_read() {
        reads += 1;
        assert!(
            reads <= blocks.checked_ilog2().unwrap_or(0) + 1,
            "{reads} reads of {blocks} blocks"
        );
        let position = read.position as usize;
        assert!(
            search
                .clone()
                .feed(&bytes[position..position + read.length - 1])
                .is_err(),
            "a cut-off file"
        );
        search.feed(&bytes[position..]).ok()?;
    }
    let found = search.found();
    assert!(found.key() <= target || found.key() == E::floor(base_offset).key());
    Some(found)
}

/// Indexes as files and as distances.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(8);
    let (base, target) = (1000_i64, 1400_i64);
    let first = |choice: u8| [&[choice], &base.to_be_bytes()[..], &target.to_be_bytes()].concat();
    let mut offsets = OffsetIndex::new(base, BYTES_MAX);
    let mut times = TimeIndex::new(base, BYTES_MAX);
    let mut transactions = TransactionIndex::new();
    let mut seeds = Vec::new();
    for entry in 1..40_i64 {
        offsets
            .append(base + entry * 20, entry as u32 * 4096)
            .expect("entries that grow");
        times
            .maybe_append(entry * 50, base + entry * 20, false)
            .expect("entries that grow");
        let aborted = AbortedTransaction {
            producer_id: entry % 3,
            first_offset: base + entry * 10,
            last_offset: base + entry * 20,
            last_stable_offset: base + entry * 10,
        };
        transactions.append(aborted).expect("entries that grow");
        if entry % 13 == 1 {
            seeds.push(
                [
                    first(0),
                    offsets.encode(),
                    vec![0; OFFSET_ENTRY_BYTES * (entry as usize % 2)],
                ]
                .concat(),
            );
            seeds.push(
                [
                    first(1),
                    times.encode(),
                    vec![0; TIME_ENTRY_BYTES * (entry as usize % 2)],
                ]
                .concat(),
            );
            seeds.push([first(2), transactions.encode()].concat());
            assert_eq!(
                transactions.encode().len(),
                entry as usize * ABORTED_ENTRY_BYTES
            );
            seeds.push([first(GROWING), numbers.bytes(3 * entry as usize)].concat());
            seeds.push([first(GROWING | 1), numbers.bytes(3 * entry as usize)].concat());
        }
    }
    seeds
}
