//! What passes leave to a truncation: it finds no transaction open that is not.

use bytes::Bytes;
use ringlog_engine::batch::{
    Attributes, BatchBuilder, BatchHeader, EndTransactionMarker, ProduceRules,
};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::log::ReadLimit;
use ringlog_engine::producer_state::ProducerBatch;

use crate::support::*;

const PRODUCER: i64 = 101;

/// Exactly an eighth of a segment, for keys of three bytes.
fn eighth(builder: BatchBuilder, key: &str) -> BatchBuilder {
    assert_eq!(key.len(), 3);
    builder.record(NOW, Some(key.as_bytes()), Some(&[0; 951]))
}

async fn put(log: &SimLog, keys: impl IntoIterator<Item = String>) {
    for key in keys {
        append(log, eighth(BatchBuilder::new(), &key))
            .await
            .expect("appended");
    }
}

/// A batch of a transaction.
async fn put_in_transaction(log: &SimLog, sequence: i32, key: &str) {
    let builder = BatchBuilder::new()
        .producer(PRODUCER, 0, sequence)
        .attributes(Attributes::default().with_transactional(true));
    let batch = eighth(builder, key).build().expect("a batch");
    let header = BatchHeader::parse(&batch).expect("a header");
    let rules = ProduceRules {
        transactional_allowed: true,
        ..rules()
    };
    let of = ProducerBatch::of(&header).expect("a producer");
    let guard = log.begin_verification(&of, false).expect("current");
    let appended = log
        .append_verified(Bytes::from(batch), &rules, 1, guard)
        .await
        .expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

async fn commit(log: &SimLog) {
    let marker = EndTransactionMarker {
        producer_id: PRODUCER,
        producer_epoch: 0,
        coordinator_epoch: 1,
        committed: true,
        timestamp: NOW,
    };
    let appended = log.append_marker(&marker, 1, 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

#[test]
fn a_truncation_finds_no_transaction_whose_marker_was_compacted_away() {
    live(&SimDisk::new(30), |env| async move {
        let (engine, log) = open(&env, config()).await;
        let keys = |first: &str, count| {
            let first = first.to_owned();
            (0..count).map(move |number| format!("{first}-{number}"))
        };
        // A segment whose records all go, two that stay as they are with the transaction open at the snapshot between them, and one with the marker.
        put_in_transaction(&log, 0, "a-0").await;
        put(&log, keys("a", 8).skip(1)).await;
        put(&log, keys("u", 8)).await;
        // A checkpoint, whose snapshot stays because a segment begins there.
        settle(&env).await;
        put(&log, keys("v", 8)).await;
        let snapshot = format!("{:020}.snapshot", 16);
        assert!(names(&env).await.contains(&snapshot));
        commit(&log).await;
        put(&log, keys("a", 6)).await;
        put(&log, keys("w", 1)).await;
        // The marker is not what is known last of the producer.
        put_in_transaction(&log, 1, "a-0").await;
        commit(&log).await;
        for (round, time) in [(1, NOW), (2, NOW), (3, NOW + 2000)] {
            put(&log, (0..24).map(|_| "z-0".to_owned())).await;
            put(&log, keys("a", 8)).await;
            settle(&env).await;
            engine.clean_now(time).await;
            assert_eq!(engine.metrics().cleaner.passes, round);
        }
        let read = log.read(24, 100, true, ReadLimit::HighWatermark).await;
        let first = BatchHeader::parse(&read.expect("readable").pieces.concat()).expect("a header");
        assert!(
            first.base_offset > 24 || first.record_count == 0,
            "the marker is gone"
        );
        let end = log.truncate_to(32).await.expect("truncated");
        assert_eq!(end, 32);
        let open = |view: &ringlog_engine::producer_state::ProducerView| {
            view.current_transaction_start_offset >= 0
        };
        assert!(!log.producer_states().iter().any(open));
        assert_eq!(log.last_stable_offset(), log.high_watermark());
    });
}
