//! What stays of a batch: by key, by delete horizon, by producer, by transaction; and that what stays is a batch that says the same of its records.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::batch::{Attributes, BatchBuilder};

const NOW: i64 = 1_000_000;
const RETENTION: i64 = 1000;

type Producers = HashMap<i64, LastOfProducer>;

fn map_of(keys: &[(&[u8], i64)], latest: i64) -> OffsetMap {
    let mut map = OffsetMap::new(1 << 16, [3, 4]);
    for (key, offset) in keys {
        assert!(map.put(key, *offset));
    }
    map.reached(latest);
    map
}

fn judge_at(map: &OffsetMap, producers: &Producers, now_ms: i64, batch: &[u8]) -> Kept {
    let mut filter = Filter::new(Rules {
        map,
        now_ms,
        delete_retention_ms: RETENTION,
        producers,
        decompressed_bytes_max: 1 << 20,
    });
    judge_with(&mut filter, batch)
}

fn judge_with(filter: &mut Filter<'_>, batch: &[u8]) -> Kept {
    let header = BatchHeader::parse(batch).expect("a header");
    let judged = filter.judge(&header, batch, &async |_| {});
    judged
        .now_or_never()
        .expect("without waiting")
        .expect("judged")
}

fn changed(kept: Kept) -> (BatchHeader, Vec<u8>) {
    let Kept::Changed(bytes) = kept else {
        panic!("{kept:?} where a changed batch is expected")
    };
    let header = BatchHeader::parse(&bytes).expect("a header");
    assert!(header.checksum_matches(&bytes));
    (header, bytes)
}

/// Offset, timestamp, key, value of each record.
type Row = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows(bytes: &[u8]) -> Vec<Row> {
    let header = BatchHeader::parse(bytes).expect("a header");
    let records = read_records(bytes, &header, 1 << 20).expect("records");
    records
        .iter()
        .map(|record| {
            let record = record.expect("a record");
            (
                header.base_offset + i64::from(record.offset_delta),
                header.base_timestamp + record.timestamp_delta,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
            )
        })
        .collect()
}

fn batch_at(offset: i64, records: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new().at(offset, 5);
    for (number, (key, value)) in records.iter().enumerate() {
        builder = builder.record(NOW - 100 + number as i64, Some(key), *value);
    }
    builder.build().expect("a batch")
}

#[test]
fn a_batch_that_loses_nothing_stays_as_it_is() {
    let batch = batch_at(10, &[(b"a", Some(b"1")), (b"b", Some(b"2"))]);
    let map = map_of(&[(b"a", 10), (b"b", 11)], 20);
    assert_eq!(judge_at(&map, &Producers::new(), NOW, &batch), Kept::Whole);
    // What the map does not reach is not judged, and neither are keys that it does not know.
    let map = map_of(&[(b"a", 30)], 9);
    assert_eq!(judge_at(&map, &Producers::new(), NOW, &batch), Kept::Whole);
    let map = map_of(&[(b"c", 15)], 20);
    assert_eq!(judge_at(&map, &Producers::new(), NOW, &batch), Kept::Whole);
}

#[test]
fn records_that_a_later_one_replaces_go_and_offsets_stay() {
    let batch = batch_at(
        10,
        &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b"3"))],
    );
    let map = map_of(&[(b"a", 15), (b"b", 11), (b"c", 16)], 20);
    let (header, bytes) = changed(judge_at(&map, &Producers::new(), NOW, &batch));
    let row = (11, NOW - 99, Some(b"b".to_vec()), Some(b"2".to_vec()));
    assert_eq!(rows(&bytes), [row]);
    assert_eq!(
        (
            header.base_offset,
            header.last_offset(),
            header.record_count
        ),
        (10, 12, 1)
    );
    assert_eq!((header.leader_epoch, header.max_timestamp), (5, NOW - 99));
    assert!(!header.attributes.has_delete_horizon());
    // Again nothing more happens.
    assert_eq!(judge_at(&map, &Producers::new(), NOW, &bytes), Kept::Whole);
    let all = map_of(&[(b"a", 15), (b"b", 17), (b"c", 16)], 20);
    assert_eq!(
        judge_at(&all, &Producers::new(), NOW, &bytes),
        Kept::Nothing
    );
}

#[test]
fn a_tombstone_gets_its_horizon_once_and_goes_when_that_has_passed() {
    let batch = batch_at(10, &[(b"a", None), (b"b", Some(b"2"))]);
    let map = map_of(&[(b"a", 10), (b"b", 11)], 20);
    let none = Producers::new();
    let (header, with_horizon) = changed(judge_at(&map, &none, NOW, &batch));
    assert!(header.attributes.has_delete_horizon());
    assert_eq!(header.base_timestamp, NOW + RETENTION);
    assert_eq!(
        rows(&with_horizon),
        rows(&batch),
        "timestamps are what they were"
    );
    assert_eq!(header.max_timestamp, NOW - 99);
    // A later pass does not put it off.
    assert_eq!(
        judge_at(&map, &none, NOW + RETENTION - 1, &with_horizon),
        Kept::Whole
    );
    let (header, rest) = changed(judge_at(&map, &none, NOW + RETENTION, &with_horizon));
    assert_eq!(rows(&rest), rows(&batch)[1..]);
    assert!(header.attributes.has_delete_horizon());
    assert_eq!(header.base_timestamp, NOW + RETENTION);
    // One that a later record replaces goes at once.
    let replaced = map_of(&[(b"a", 12), (b"b", 13)], 20);
    assert_eq!(judge_at(&replaced, &none, NOW, &batch), Kept::Nothing);
}

#[test]
fn records_without_a_key_are_no_part_of_a_compacted_log() {
    let batch = BatchBuilder::new()
        .at(3, 0)
        .record(1, None, Some(b"v"))
        .record(1, Some(b"k"), Some(b"v"))
        .build()
        .expect("a batch");
    let map = map_of(&[], 20);
    let (_, rest) = changed(judge_at(&map, &Producers::new(), NOW, &batch));
    assert_eq!(rows(&rest), rows(&batch)[1..]);
}

#[test]
fn the_last_batch_of_a_producer_stays_as_a_header() {
    let batch = BatchBuilder::new()
        .at(10, 2)
        .producer(7, 3, 40)
        .compression(Compression::Lz4)
        .record(NOW, Some(b"a"), Some(b"1"))
        .record(NOW + 1, Some(b"a"), Some(b"2"))
        .build()
        .expect("a batch");
    let map = map_of(&[(b"a", 15)], 20);
    let last = |last_data_offset, epoch| {
        let last = LastOfProducer {
            epoch,
            last_data_offset,
        };
        Producers::from([(7, last)])
    };
    let (header, bytes) = changed(judge_at(&map, &last(Some(11), 3), NOW, &batch));
    assert_eq!((bytes.len(), header.record_count), (HEADER_BYTES, 0));
    assert_eq!(
        (
            header.base_offset,
            header.last_offset(),
            header.leader_epoch
        ),
        (10, 11, 2)
    );
    assert_eq!(
        (
            header.producer_id,
            header.producer_epoch,
            header.base_sequence
        ),
        (7, 3, 40)
    );
    assert_eq!(
        (header.last_sequence(), header.max_timestamp),
        (41, NOW + 1)
    );
    assert_eq!(header.attributes.compression(), Ok(Compression::None));
    // It stays as long as it is the last, and no longer.
    assert_eq!(judge_at(&map, &last(Some(11), 3), NOW, &bytes), Kept::Whole);
    assert_eq!(
        judge_at(&map, &last(Some(12), 3), NOW, &bytes),
        Kept::Nothing
    );
    for other in [last(Some(12), 3), last(None, 3), Producers::new()] {
        assert_eq!(judge_at(&map, &other, NOW, &batch), Kept::Nothing);
    }
}

fn transactional(offset: i64, producer: i64, marker: Option<u8>) -> Vec<u8> {
    let attributes = Attributes::default()
        .with_transactional(true)
        .with_control(marker.is_some());
    let builder = BatchBuilder::new()
        .at(offset, 0)
        .producer(producer, 1, 0)
        .attributes(attributes);
    let builder = match marker {
        Some(kind) => builder.record(NOW, Some(&[0, 0, 0, kind]), Some(&[0; 6])),
        None => builder.record(NOW, Some(format!("k{offset}").as_bytes()), Some(b"v")),
    };
    builder.build().expect("a batch")
}

#[test]
fn aborted_records_go_and_their_marker_stays_until_its_horizon() {
    let map = map_of(&[], 100);
    let producers = Producers::new();
    let rules = |now_ms| Rules {
        map: &map,
        now_ms,
        delete_retention_ms: RETENTION,
        producers: &producers,
        decompressed_bytes_max: 1 << 20,
    };
    let aborted = AbortedTransaction {
        producer_id: 7,
        first_offset: 1,
        last_offset: 3,
        last_stable_offset: 4,
    };
    let mut first = Filter::new(rules(NOW));
    first.expect_aborted([aborted]);
    assert_eq!(
        judge_with(&mut first, &transactional(0, 8, None)),
        Kept::Whole
    );
    assert_eq!(
        judge_with(&mut first, &transactional(1, 7, None)),
        Kept::Nothing
    );
    let commit = transactional(2, 8, Some(1));
    assert_eq!(
        judge_with(&mut first, &commit),
        Kept::Whole,
        "a record of it is there"
    );
    let abort = transactional(3, 7, Some(0));
    assert_eq!(
        judge_with(&mut first, &abort),
        Kept::Whole,
        "a record of it was there"
    );
    assert_eq!(first.aborted, [aborted], "the index goes on to name it");

    // Next time it has no records any more: it gets a horizon, is kept until then, and leaves the index.
    let mut second = Filter::new(rules(NOW));
    second.expect_aborted([aborted]);
    let (header, idle) = changed(judge_with(&mut second, &abort));
    assert!(header.attributes.has_delete_horizon() && header.attributes.is_control());
    assert_eq!(header.base_timestamp, NOW + RETENTION);
    assert_eq!(rows(&idle), rows(&abort));
    assert!(second.aborted.is_empty());
    let mut third = Filter::new(rules(NOW + RETENTION - 1));
    assert_eq!(judge_with(&mut third, &idle), Kept::Whole);
    let mut last = Filter::new(rules(NOW + RETENTION));
    assert_eq!(judge_with(&mut last, &idle), Kept::Nothing);
    // A commit marker whose records a later one replaced goes the same way.
    let (header, _) = changed(judge_with(&mut last, &commit));
    assert!(header.attributes.has_delete_horizon());
}

#[test]
fn a_marker_that_is_all_there_is_of_a_producer_stays() {
    let map = map_of(&[], 100);
    let last = LastOfProducer {
        epoch: 1,
        last_data_offset: None,
    };
    let producers = Producers::from([(7, last)]);
    let (_, idle) = changed(judge_at(
        &map,
        &producers,
        NOW,
        &transactional(3, 7, Some(0)),
    ));
    let (header, bare) = changed(judge_at(&map, &producers, NOW + RETENTION, &idle));
    assert_eq!((header.record_count, header.producer_epoch), (0, 1));
    assert_eq!(
        judge_at(&map, &producers, NOW + RETENTION, &bare),
        Kept::Whole
    );
    assert_eq!(judge_at(&map, &Producers::new(), NOW, &bare), Kept::Nothing);
}

#[test]
fn control_batches_of_other_kinds_stay() {
    let map = map_of(&[], 100);
    let other = transactional(3, 7, Some(2));
    assert_eq!(
        judge_at(&map, &Producers::new(), i64::MAX, &other),
        Kept::Whole
    );
}

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

proptest! {
    /// Against a model: of a log of batches, exactly the last record of each key stays, the rest of each batch's header with it.
    #[test]
    fn exactly_the_last_record_of_each_key_stays(
        log in prop::collection::vec(
            (0usize..5, prop::collection::vec((0u8..6, prop::option::of(0u8..9), -50i64..50), 1..6)),
            1..8,
        ),
        passes in 1usize..4,
    ) {
        let mut batches = Vec::new();
        let mut last: BTreeMap<u8, i64> = BTreeMap::new();
        let mut map = OffsetMap::new(1 << 14, [1, 2]);
        let mut offset = 0;
        for (codec, records) in &log {
            let mut builder = BatchBuilder::new().at(offset, 1).compression(CODECS[*codec]);
            for (key, value, time) in records {
                let value = value.map(|value| vec![value; usize::from(value)]);
                builder.push(NOW + time, Some(&[*key]), value.as_deref(), &[(b"h", Some(b"x")), (b"", None)]);
                last.insert(*key, offset);
                prop_assert!(map.put(&[*key], offset));
                offset += 1;
            }
            batches.push(builder.build().expect("a batch"));
        }
        map.reached(offset - 1);
        let expected: Vec<Row> = batches
            .iter()
            .flat_map(|batch| rows(batch))
            .filter(|(offset, _, key, _)| key.as_ref().is_some_and(|key| last[&key[0]] == *offset))
            .collect();
        let mut kept = batches.clone();
        for pass in 0..passes {
            kept = kept.into_iter().filter_map(|batch| {
                let before = BatchHeader::parse(&batch).expect("a header");
                match judge_at(&map, &Producers::new(), NOW, &batch) {
                    Kept::Whole => Some(batch),
                    Kept::Nothing => None,
                    changed => {
                        assert_eq!(pass, 0, "a second pass finds nothing to do");
                        let Kept::Changed(bytes) = changed else { unreachable!() };
                        let after = BatchHeader::parse(&bytes).expect("a header");
                        assert!(after.checksum_matches(&bytes));
                        assert_eq!((after.base_offset, after.last_offset()), (before.base_offset, before.last_offset()));
                        assert_eq!(after.attributes.compression(), before.attributes.compression());
                        assert!(after.size() <= before.size() + 64);
                        Some(bytes)
                    }
                }
            }).collect();
        }
        let found: Vec<Row> = kept.iter().flat_map(|batch| rows(batch)).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_batch_that_grows_large_is_judged_in_steps() {
    let value = vec![1; 100];
    for codec in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let mut builder = BatchBuilder::new().compression(codec);
        for number in 0..5000u32 {
            builder = builder.record(NOW, Some(&number.to_be_bytes()), Some(&value));
        }
        let batch = builder.build().expect("a batch");
        let header = BatchHeader::parse(&batch).expect("a header");
        let zero = 0u32.to_be_bytes();
        let map = map_of(&[(&zero, 10_000)], 10_000);
        let producers = Producers::new();
        let mut filter = Filter::new(Rules {
            map: &map,
            now_ms: NOW,
            delete_retention_ms: RETENTION,
            producers: &producers,
            decompressed_bytes_max: 2 << 20,
        });
        let (total, longest) = (Cell::new(0), Cell::new(0));
        let turn = async |bytes: usize| {
            total.set(total.get() + bytes);
            longest.set(longest.get().max(bytes));
        };
        let judged = filter.judge(&header, &batch, &turn).now_or_never();
        let (header, bytes) = changed(judged.expect("without waiting").expect("judged"));
        assert_eq!((header.record_count, rows(&bytes).len()), (4999, 4999));
        let once = 5000 * 110;
        // Looked at; unpacked too, and packed again.
        let times = if codec == Compression::None { 1 } else { 3 };
        assert!(
            total.get() > once * times - 3 * STRETCH_BYTES,
            "{codec:?}: {}",
            total.get()
        );
        assert!(
            longest.get() < STRETCH_BYTES + 200,
            "{codec:?}: {}",
            longest.get()
        );
    }
}
