//! What passes leave to those who come afterwards or meanwhile: a truncation finds no transaction open that is not, and who makes an index anew does not put it over a cleaned segment's.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use ringlog_engine::batch::{
    Attributes, BatchBuilder, BatchHeader, EndTransactionMarker, ProduceRules,
};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::environment::Environment;
use ringlog_engine::log::ReadLimit;
use ringlog_engine::producer_state::ProducerBatch;
use ringlog_engine::sim::SimEnvironment;

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

/// Every entry of every offset index on disk names a batch that ends at its offset.
async fn check_indexes(env: &SimEnvironment, context: &str) {
    for name in names(env).await {
        let Some(base) = name.strip_suffix(".index") else {
            continue;
        };
        let at = |name: &str| Path::new(DIRECTORY).join(name);
        let index = env.disk().read_small(&at(&name)).await.expect("an index");
        let log = env.disk().read_small(&at(&format!("{base}.log"))).await;
        let (log, base) = (
            log.expect("its log"),
            base.parse::<i64>().expect("an offset"),
        );
        for entry in index.chunks_exact(8) {
            let word = |at: usize| {
                i64::from(u32::from_be_bytes(
                    entry[at..at + 4].try_into().expect("4 bytes"),
                ))
            };
            let (offset, position) = (base + word(0), word(4) as usize);
            if (word(0), position) == (0, 0) {
                continue;
            }
            let header = log.get(position..).map(BatchHeader::parse);
            let last = header
                .and_then(Result::ok)
                .map(|header| header.last_offset());
            assert_eq!(last, Some(offset), "{context}: {name} at {position}");
        }
    }
}

#[test]
fn an_index_made_anew_does_not_take_a_cleaned_ones_place() {
    const COUNT: i64 = 300;
    let dense = || LogConfig {
        index_interval_bytes: 256,
        ..log_config()
    };
    let ((), disk) = live(&SimDisk::new(31), |env| async move {
        let (engine, log) = open(&env, config()).await;
        log.set_config(dense());
        fill(&env, &log, COUNT as usize).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    let listing = disk.clone();
    let (bases, _) = live(&listing, |env| async move {
        let names = names(&env).await;
        let base_of = |name: &String| name.strip_suffix(".index").map(str::to_owned);
        names.iter().filter_map(base_of).collect::<Vec<_>>()
    });
    for base in &bases[..bases.len() - 1] {
        // The positions of two entries.
        let path = Path::new(DIRECTORY).join(format!("{base}.index"));
        for entry in 1..20 {
            let _ = disk.flip_bit(&path, entry * 8 + 7, 3);
        }
    }
    for attempt in 0..20 {
        let bases = bases.clone();
        live(&disk.kill(attempt), |env| async move {
            let config = EngineConfig {
                loaded_index_bytes_max: 0,
                ..config()
            };
            let (engine, log) = open(&env, config).await;
            log.set_config(dense());
            let reader = async {
                for base in bases[..bases.len() - 2].iter().step_by(2) {
                    // Its cleaned segment is about to be put in place: what is made anew now is of the old one.
                    let begun = format!("{base}.index.cleaned");
                    while !names(&env).await.contains(&begun) && env.now() < 2_000_000 {
                        env.sleep(Duration::from_micros(20)).await;
                    }
                    env.sleep(Duration::from_micros(60 * attempt)).await;
                    let offset: i64 = base.parse().expect("an offset");
                    let read = log.read(offset + 9, 400, true, ReadLimit::HighWatermark);
                    assert!(read.await.expect("readable").next_offset > offset);
                }
            };
            join(engine.clean_now(NOW), reader).await;
            assert_eq!(engine.metrics().cleaner.passes, 1);
            assert_eq!(engine.metrics().cleaner.uncleanable, 0);
            check_indexes(&env, &format!("attempt {attempt}")).await;
        });
    }
}
