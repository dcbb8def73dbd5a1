//! The form of the records, and what a coordinator makes of those it finds.

use bytes::Bytes;
use proptest::prelude::*;
use ringlog_net::Str;
use ringlog_net::codec::{Message, Writer};
use ringlog_net::coordinators::{TransactionLogValue, TransactionPartitions};

use super::super::partitions::Partitions;
use super::super::transaction::Transaction;
use super::super::{log, state::TransactionState};
use super::bench::*;
use crate::transactions::{TransactionConfig, TransactionCoordinator, UnreadableRecord};

fn encode(version: i16, value: &TransactionLogValue) -> Bytes {
    let mut writer = Writer::new();
    writer.i16(version);
    value.encode(&mut writer, version).unwrap();
    writer.into_bytes()
}

/// What Kafka 4 writes for an ongoing transaction of one partition, byte by byte.
#[test]
fn records_are_kafkas() {
    let mut partitions = Partitions::default();
    partitions.insert("t", 3);
    let transaction = Transaction {
        producer_id: 9,
        previous_producer_id: 9,
        next_producer_id: -1,
        producer_epoch: 2,
        last_producer_epoch: 1,
        timeout_ms: 60_000,
        state: TransactionState::Ongoing,
        partitions,
        start_ms: 256,
        update_ms: 257,
        client_version: 2,
        deadline_ms: None,
        updated_monotonic_ms: None,
    };
    assert_eq!(log::key(&Str::from("id")).unwrap(), b"\0\0\0\x02id"[..]);
    let value = log::value(&transaction).unwrap();
    let expected: &[&[u8]] = &[
        b"\0\x01",                    // version
        b"\0\0\0\0\0\0\0\x09",        // producer id
        b"\0\x02",                    // epoch
        b"\0\0\xea\x60",              // timeout
        b"\x01",                      // ongoing
        b"\x02\x02t\x02\0\0\0\x03\0", // one topic, one partition, no tags
        b"\0\0\0\0\0\0\x01\x01",      // last update
        b"\0\0\0\0\0\0\x01\0",        // start
        b"\x02",                      // two tagged fields
        b"\0\x08\0\0\0\0\0\0\0\x09",  // 0: previous producer id
        b"\x02\x02\0\x02",            // 2: client's transaction version
    ];
    assert_eq!(value, expected.concat());
}

#[test]
fn records_of_version_0_are_read() {
    let value = TransactionLogValue {
        producer_id: 7,
        producer_epoch: 3,
        transaction_timeout_ms: 1000,
        transaction_status: 2,
        transaction_partitions: Some(vec![TransactionPartitions {
            topic: Str::from("topic"),
            partition_ids: vec![4],
        }]),
        transaction_last_update_timestamp_ms: 6,
        transaction_start_timestamp_ms: 5,
        ..Default::default()
    };
    let read = log::read_value(&encode(0, &value)).unwrap();
    assert_eq!(read.identity(), identity(7, 3));
    assert_eq!(read.state, TransactionState::PrepareCommit);
    assert!(read.partitions.contains("topic", 4));
    assert_eq!((read.next_producer_id, read.previous_producer_id), (-1, -1));
    assert_eq!((read.client_version, read.last_producer_epoch), (0, -1));
}

#[test]
fn what_is_newer_is_foreign_and_what_is_broken_is_not() {
    let config = TransactionConfig::default();
    let mut coordinator = TransactionCoordinator::new(config, 0);
    let key = log::key(&Str::from("id")).unwrap();
    let mut replay = |key: &Bytes, value: &[u8]| {
        let value = Bytes::copy_from_slice(value);
        coordinator.replay(key, Some(&value)).unwrap_err()
    };
    let newer_key = Bytes::from_static(b"\0\x01whatever");
    assert_eq!(replay(&newer_key, b""), UnreadableRecord::KeyType(1));
    assert!(replay(&newer_key, b"").is_foreign());
    let newer = replay(&key, b"\0\x02whatever");
    assert_eq!(newer, UnreadableRecord::ValueVersion(2));
    assert!(newer.is_foreign());
    assert!(!replay(&key, b"\0\x01short").is_foreign());
    assert!(!replay(&Bytes::from_static(b"\0"), b"").is_foreign());
    for status in [6, 7, 8, -1] {
        let value = TransactionLogValue {
            transaction_status: status,
            ..Default::default()
        };
        let error = replay(&key, &encode(1, &value));
        assert_eq!(error, UnreadableRecord::State(status));
        assert!(!error.is_foreign());
    }
    assert_eq!(coordinator.transactional_ids(), 0);
}

/// Kafka writes the abort of nothing down before its end, and may stop in between.
#[test]
fn an_abort_of_nothing_is_ended() {
    let mut bench = Bench::new();
    let value = TransactionLogValue {
        producer_id: 7,
        producer_epoch: 3,
        transaction_timeout_ms: 1000,
        transaction_status: 3,
        transaction_partitions: Some(Vec::new()),
        client_transaction_version: 2,
        ..Default::default()
    };
    bench.log.push(crate::record::Record {
        key: log::key(&Str::from("id")).unwrap(),
        value: Some(encode(1, &value)),
    });
    bench.fail_over();
    assert!(bench.markers.is_empty());
    assert_eq!(bench.end(END, "id", identity(7, 2), false), None);
    let waiting = bench.tokens;
    let due = bench.coordinator.next_deadline();
    assert_eq!(due, Some(bench.now.monotonic_ms));
    bench.timeout();
    assert_eq!(bench.reply(waiting), Some(Ok(identity(7, 3))));
    assert_eq!(bench.state("id"), "CompleteAbort");
    assert_eq!(bench.coordinator.next_deadline(), None);
}

#[test]
fn a_new_coordinator_carries_out_what_it_finds_decided() {
    for committed in [true, false] {
        let mut bench = Bench::new();
        let producer = bench.ongoing("id");
        bench.end(END, "id", producer, committed);
        let before = bench.markers[0].clone();
        bench.fail_over();
        let after = bench.markers[0].clone();
        assert_eq!(after.coordinator_epoch(), before.coordinator_epoch() + 1);
        assert_eq!(after.committed, committed);
        assert_eq!(after.producer_epoch, before.producer_epoch);
        assert_eq!(after.partitions, before.partitions);
        assert_eq!(after.transaction_version, before.transaction_version);
        // The report to the coordinator before is not taken for one to this.
        bench.report(&before, &before.partitions);
        assert!(bench.state("id").starts_with("Prepare"));
        bench.write_markers();
        assert!(bench.state("id").starts_with("Complete"));
    }
}

fn any_transaction() -> impl Strategy<Value = Transaction> {
    let partitions = prop::collection::btree_set(("[a-c]{1,3}", 0..4i32), 0..6);
    let identity = (0i64..1000, -1i64..1000, -1i64..1000, 0i16..=i16::MAX);
    let times = (1..900_000i32, -1i64..1_000_000, -1i64..1_000_000);
    (0i8..6, identity, times, 0i16..3, partitions).prop_map(
        |(state, (id, previous, next, epoch), (timeout_ms, start, update), version, chosen)| {
            let state = TransactionState::from_number(state).unwrap();
            let mut partitions = Partitions::default();
            if state != TransactionState::Empty {
                for (topic, partition) in chosen {
                    partitions.insert(&topic, partition);
                }
            }
            Transaction {
                producer_id: id,
                previous_producer_id: previous,
                next_producer_id: next,
                producer_epoch: epoch,
                last_producer_epoch: -1,
                timeout_ms,
                state,
                partitions,
                start_ms: start,
                update_ms: update,
                client_version: version,
                deadline_ms: None,
                updated_monotonic_ms: None,
            }
        },
    )
}

proptest! {
    #[test]
    fn records_survive_being_written(transaction in any_transaction()) {
        let value = log::value(&transaction).unwrap();
        let mut read = log::read_value(&value).unwrap();
        read.last_producer_epoch = -1;
        prop_assert_eq!(read, transaction);
    }

    #[test]
    fn no_bytes_make_it_panic(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut coordinator = TransactionCoordinator::new(TransactionConfig::default(), 0);
        let value = Bytes::from(value);
        let _ = coordinator.replay(&Bytes::from(key), Some(&value));
        let _ = coordinator.replay(&log::key(&Str::from("id")).unwrap(), Some(&value));
    }
}
