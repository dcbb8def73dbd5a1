//! Proves: lookups find what a plain search finds, in memory and in a file; stored bytes are Kafka's and round-trip; damage never decodes and never panics; a rebuilt index equals the lost one.

use proptest::prelude::*;

use super::{
    AbortedTransaction, IndexError, IndexSettings, OffsetEntry, OffsetIndex, SegmentIndexes,
    StoredEntry, StoredLookup, TimeEntry, TimeIndex, TransactionIndex,
};
use crate::batch::{BatchBuilder, BatchHeader};

const BYTES_MAX: u32 = 10 << 20;

fn offset_index(base: i64, steps: &[(i64, u32)]) -> (OffsetIndex, Vec<OffsetEntry>) {
    let mut index = OffsetIndex::new(base, BYTES_MAX);
    let mut entries = Vec::new();
    let (mut offset, mut position) = (base, 0);
    for &(by, bytes) in steps {
        offset += by;
        position += bytes;
        index.append(offset, position).expect("rising entries");
        entries.push(OffsetEntry { offset, position });
    }
    (index, entries)
}

fn time_index(base: i64, steps: &[(i64, i64)]) -> (TimeIndex, Vec<TimeEntry>) {
    let mut index = TimeIndex::new(base, BYTES_MAX);
    let mut entries = Vec::new();
    let (mut timestamp, mut offset) = (0, base);
    for &(ms, by) in steps {
        timestamp += ms;
        offset += by;
        index
            .maybe_append(timestamp, offset, false)
            .expect("rising entries");
        entries.push(TimeEntry { timestamp, offset });
    }
    (index, entries)
}

/// Searches `file` as an engine would, and counts the reads.
fn search<E: StoredEntry>(base: i64, file: &[u8], target: i64) -> Result<(E, usize), IndexError> {
    let mut lookup = StoredLookup::<E>::new(base, file.len() as u64, target)?;
    let mut reads = 0;
    while let Some(read) = lookup.next_read() {
        assert_eq!(read.position % 4096, 0);
        lookup.feed(&file[read.position as usize..][..read.length])?;
        reads += 1;
    }
    Ok((lookup.found(), reads))
}

proptest! {
    #[test]
    fn offsets_are_found(
        base in 0i64..1 << 40,
        steps in prop::collection::vec((1i64..50, 1u32..9000), 0..3000),
        targets in prop::collection::vec(-10i64..100_000, 1..40),
    ) {
        let (index, entries) = offset_index(base, &steps);
        let file = index.encode();
        let blocks = file.len().div_ceil(4096);
        for target in targets {
            let target = base + target;
            let expected = entries.iter().rev().find(|entry| entry.offset <= target).copied();
            let expected = expected.unwrap_or(OffsetEntry { offset: base, position: 0 });
            prop_assert_eq!(index.lookup(target), expected);
            let (found, reads) = search::<OffsetEntry>(base, &file, target).expect("intact");
            prop_assert_eq!(found, expected);
            prop_assert!(reads <= blocks.ilog2_or_zero() + 1);
        }
        prop_assert_eq!(OffsetIndex::decode(base, BYTES_MAX, &file), Ok(index));
    }

    #[test]
    fn timestamps_are_found(
        base in 0i64..1 << 40,
        steps in prop::collection::vec((1i64..50, 0i64..50), 0..3000),
        targets in prop::collection::vec(-10i64..100_000, 1..40),
    ) {
        let (index, entries) = time_index(base, &steps);
        let file = index.encode();
        for target in targets {
            let expected = entries.iter().rev().find(|entry| entry.timestamp <= target).copied();
            let expected = expected.unwrap_or(TimeEntry { timestamp: -1, offset: base });
            prop_assert_eq!(index.lookup(target), expected);
            let (found, reads) = search::<TimeEntry>(base, &file, target).expect("intact");
            prop_assert_eq!(found, expected);
            prop_assert!(reads <= file.len().div_ceil(3 * 4096).ilog2_or_zero() + 1);
        }
        prop_assert_eq!(TimeIndex::decode(base, BYTES_MAX, &file), Ok(index));
    }

    #[test]
    fn truncation_keeps_what_lies_before(steps in prop::collection::vec((1i64..50, 1u32..900), 0..200), to in -5i64..6000) {
        let (mut index, entries) = offset_index(100, &steps);
        index.truncate_to(100 + to);
        let kept: Vec<_> = entries.iter().filter(|entry| entry.offset < 100 + to).copied().collect();
        prop_assert_eq!(index.len(), kept.len());
        prop_assert_eq!(index.last(), kept.last().copied());

        let steps: Vec<_> = steps.iter().map(|&(by, bytes)| (i64::from(bytes), by)).collect();
        let (mut index, entries) = time_index(100, &steps);
        index.truncate_to(100 + to);
        let kept: Vec<_> = entries.iter().filter(|entry| entry.offset < 100 + to).copied().collect();
        prop_assert_eq!(index.len(), kept.len());
        prop_assert_eq!(index.last(), kept.last().copied().unwrap_or(TimeEntry { timestamp: -1, offset: 100 }));
    }

    #[test]
    fn damage_is_noticed_or_harmless(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole in any::<bool>(), base in any::<i64>(), target in any::<i64>()) {
        if whole {
            bytes.truncate(bytes.len() / 408 * 408 + bytes.len() % 408 / 24 * 24);
        }
        if let Ok(index) = OffsetIndex::decode(base, BYTES_MAX, &bytes) {
            let found = index.lookup(target);
            prop_assert!(found.offset <= target || found.position == 0);
        }
        if let Ok(index) = TimeIndex::decode(base, BYTES_MAX, &bytes) {
            let found = index.lookup(target);
            prop_assert!(found.timestamp <= target || found.timestamp == -1);
        }
        if let Ok(index) = TransactionIndex::decode(&bytes) {
            prop_assert_eq!(index.encode(), bytes.clone());
        }
        let _ = search::<OffsetEntry>(base, &bytes, target);
        let _ = search::<TimeEntry>(base, &bytes, target);
    }

    #[test]
    fn aborted_transactions_round_trip(steps in prop::collection::vec((any::<i64>(), 0i64..20, 1i64..30), 0..50), from in 0i64..500, length in 0i64..200) {
        let mut index = TransactionIndex::new();
        let mut last = 0;
        for (producer_id, reach, by) in steps {
            last += by;
            index.append(AbortedTransaction { producer_id, first_offset: (last - reach).max(0), last_offset: last, last_stable_offset: last + 1 }).expect("rising");
        }
        let file = index.encode();
        prop_assert_eq!(file.len(), index.entries().len() * 34);
        prop_assert_eq!(&TransactionIndex::decode(&file).expect("intact"), &index);
        let expected: Vec<_> = index.entries().iter().filter(|entry| entry.last_offset >= from && entry.first_offset < from + length).collect();
        prop_assert_eq!(index.overlapping(from, from + length).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_index_cut_and_scanned_again_equals_one_never_cut(
        batches in prop::collection::vec((1usize..6, 1usize..3000, -50i64..1000), 1..120),
        keep in any::<prop::sample::Index>(),
        interval_bytes in prop::sample::select(vec![0u32, 500, 4096]),
    ) {
        let settings = IndexSettings { interval_bytes, index_bytes_max: BYTES_MAX };
        let mut headers: Vec<(BatchHeader, u32)> = Vec::new();
        let (mut offset, mut position) = (1000, 0);
        for (records, size, timestamp) in batches {
            let mut builder = BatchBuilder::new().at(offset, 0);
            for _ in 0..records {
                builder.push(timestamp, None, Some(&vec![0; size]), &[]);
            }
            let batch = builder.build().expect("records");
            let header = BatchHeader::parse(&batch).expect("a header");
            headers.push((header, position));
            offset = header.next_offset();
            position += batch.len() as u32;
        }
        let kept = keep.index(headers.len() + 1);
        let end = headers.get(kept).map_or(offset, |(header, _)| header.base_offset);
        let feed = |indexes: &mut SegmentIndexes, from: u32, count: usize| {
            for (header, position) in headers[..count].iter().filter(|(_, position)| *position >= from) {
                indexes.on_append(header, *position).expect("in order");
            }
        };
        let mut never_cut = SegmentIndexes::new(1000, settings);
        feed(&mut never_cut, 0, kept);
        let mut cut = SegmentIndexes::new(1000, settings);
        feed(&mut cut, 0, headers.len());
        let resume = cut.truncate_to(end);
        feed(&mut cut, resume, kept);
        prop_assert_eq!(&cut, &never_cut);
        // Sealing makes the largest timestamp findable in the file alone.
        never_cut.seal().expect("room is kept");
        prop_assert_eq!(never_cut.times.last().timestamp, never_cut.max_timestamp().timestamp);
        let largest = headers[..kept].iter().map(|(header, _)| header.max_timestamp).max().unwrap_or(-1);
        prop_assert_eq!(never_cut.max_timestamp().timestamp, largest.max(-1));
    }
}

trait Log2 {
    fn ilog2_or_zero(self) -> usize;
}

impl Log2 for usize {
    fn ilog2_or_zero(self) -> usize {
        self.checked_ilog2().unwrap_or(0) as usize
    }
}

#[test]
fn entries_have_kafkas_bytes() {
    let (index, _) = offset_index(100, &[(5, 4200), (1, 4300)]);
    assert_eq!(
        index.encode(),
        [0, 0, 0, 5, 0, 0, 0x10, 0x68, 0, 0, 0, 6, 0, 0, 0x21, 0x34]
    );
    let (index, _) = time_index(100, &[(0x0102, 3)]);
    assert_eq!(index.encode(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
    let mut index = TransactionIndex::new();
    index
        .append(AbortedTransaction {
            producer_id: 1,
            first_offset: 2,
            last_offset: 3,
            last_stable_offset: 4,
        })
        .expect("first");
    let mut expected = vec![0, 0];
    for field in 1..=4u8 {
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, field]);
    }
    assert_eq!(index.encode(), expected);
}

#[test]
fn a_batch_gets_an_entry_once_the_interval_is_exceeded() {
    let settings = IndexSettings {
        interval_bytes: 199,
        index_bytes_max: BYTES_MAX,
    };
    let mut indexes = SegmentIndexes::new(0, settings);
    let mut position = 0;
    for offset in 0..6 {
        let batch = BatchBuilder::new()
            .at(offset, 0)
            .record(offset, None, Some(&[0; 32]))
            .build()
            .expect("a record");
        assert_eq!(batch.len(), 100);
        indexes
            .on_append(&BatchHeader::parse(&batch).expect("a header"), position)
            .expect("in order");
        position += 100;
    }
    // Before offsets 2 and 4 200 bytes, more than 199, had been appended since the last entry.
    assert_eq!(indexes.offsets.len(), 2);
    assert_eq!(
        indexes.offsets.lookup(3),
        OffsetEntry {
            offset: 2,
            position: 200
        }
    );
    assert_eq!(
        indexes.offsets.lookup(5),
        OffsetEntry {
            offset: 4,
            position: 400
        }
    );
    assert_eq!(
        indexes.times.last(),
        TimeEntry {
            timestamp: 4,
            offset: 4
        }
    );
}

#[test]
fn a_full_index_asks_for_a_roll_and_keeps_room_for_the_last_timestamp() {
    let mut index = OffsetIndex::new(0, 17);
    assert!(!index.is_full());
    index.append(1, 1).expect("room");
    index.append(2, 2).expect("room");
    assert!(index.is_full());
    assert_eq!(index.append(3, 3), Err(IndexError::Full { bytes_max: 17 }));
    let mut index = TimeIndex::new(0, 36);
    index.maybe_append(1, 1, false).expect("room");
    index.maybe_append(2, 2, false).expect("room");
    assert!(index.is_full());
    assert_eq!(
        index.maybe_append(3, 3, false),
        Err(IndexError::Full { bytes_max: 36 })
    );
    index.maybe_append(3, 3, true).expect("kept for sealing");
    assert_eq!(
        index.maybe_append(4, 4, true),
        Err(IndexError::Full { bytes_max: 36 })
    );
}

#[test]
fn offsets_that_do_not_fit_are_refused() {
    let mut index = OffsetIndex::new(1000, BYTES_MAX);
    let too_far = 1000 + i64::from(i32::MAX) + 1;
    assert!(index.can_hold(too_far - 1) && !index.can_hold(too_far) && !index.can_hold(999));
    assert!(matches!(
        index.append(too_far, 1),
        Err(IndexError::RelativeOverflow { .. })
    ));
    assert!(matches!(
        index.append(999, 1),
        Err(IndexError::RelativeOverflow { .. })
    ));
    index.append(1001, 10).expect("fits");
    assert!(matches!(
        index.append(1001, 20),
        Err(IndexError::NotIncreasing { .. })
    ));
    assert!(matches!(
        index.append(1002, 10),
        Err(IndexError::NotIncreasing { .. })
    ));
    let batch = BatchBuilder::new()
        .at(too_far, 0)
        .record(0, None, None)
        .build()
        .expect("a record");
    let mut indexes = SegmentIndexes::new(1000, IndexSettings::default());
    let header = BatchHeader::parse(&batch).expect("a header");
    assert!(matches!(
        indexes.on_append(&header, 0),
        Err(IndexError::RelativeOverflow { .. })
    ));
}

#[test]
fn every_kind_of_damage_is_named() {
    let (index, _) = offset_index(0, &[(5, 100), (5, 100), (5, 100)]);
    let good = index.encode();
    let mut swapped = good.clone();
    swapped.rotate_left(8);
    let mut negative = good.clone();
    negative[0] = 0x80;
    for damaged in [&swapped[..], &negative[..], &good[..23]] {
        assert!(matches!(
            OffsetIndex::decode(0, BYTES_MAX, damaged),
            Err(IndexError::Damaged { .. })
        ));
        assert!(matches!(
            search::<OffsetEntry>(0, damaged, 7),
            Err(IndexError::Damaged { .. })
        ));
    }
    // Preallocated and not trimmed: zeros at the end are no entries.
    let padded = [good.as_slice(), &[0; 80]].concat();
    assert_eq!(OffsetIndex::decode(0, BYTES_MAX, &padded), Ok(index));
    assert_eq!(
        OffsetIndex::decode(0, BYTES_MAX, &[0; 64]).map(|index| index.len()),
        Ok(0)
    );
}

#[test]
fn an_idle_index_costs_its_struct_alone() {
    assert!(
        std::mem::size_of::<SegmentIndexes>() <= 224,
        "{}",
        std::mem::size_of::<SegmentIndexes>()
    );
    let indexes = SegmentIndexes::new(0, IndexSettings::default());
    assert!(indexes.offsets.is_empty() && indexes.times.is_empty());
    assert_eq!(indexes.offsets.encode().capacity(), 0);
}
