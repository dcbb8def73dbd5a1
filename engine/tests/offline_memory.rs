//! Proves that a log which goes offline with records in memory does not keep that memory from the others of its shard: neither while the shard runs nor
//! when it starts, nor when what a start has left in the journal is brought in. A segment error costs that partition only.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment, StopAt};

/// Bytes of tail cache, and of a record: a few dozen fill it.
const CACHE_BYTES: u64 = 1 << 20;
const RECORD_BYTES: usize = 40_000;

async fn open(env: &SimEnvironment, parked: bool) -> Engine<SimEnvironment> {
    let mut config = EngineConfig::new(vec![PathBuf::from("/good"), PathBuf::from("/bad")]);
    config.parked_batch_bytes_min = if parked { 0 } else { u64::MAX };
    config.tail_cache_bytes = CACHE_BYTES;
    config.journal_first_file_bytes = 64 << 20;
    config.journal_file_bytes = 64 << 20;
    config.write_behind_bytes = u64::MAX;
    config.write_behind_age = Duration::from_secs(1_000_000);
    config.checkpoint_interval = Duration::from_secs(1_000_000);
    prepare_directories(env, &config).await.expect("prepared");
    Engine::open(env.clone(), config).await.expect("opened").0
}

async fn create(
    engine: &Engine<SimEnvironment>,
    number: u8,
    directory: usize,
) -> Rc<Log<SimEnvironment>> {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let made = engine.create_log(
        name,
        TopicId([number; 16]),
        LogConfig::default(),
        Some(directory),
    );
    made.await.expect("made")
}

/// Appends records until the log answers no more, at most `count`; how many were acknowledged.
async fn fill(log: &Log<SimEnvironment>, count: usize) -> usize {
    let batch = BatchBuilder::new().record(0, None, Some(&[7; RECORD_BYTES]));
    let batch = Bytes::from(batch.build().expect("a batch"));
    for done in 0..count {
        let Ok(appended) = log.append(batch.clone(), &ProduceRules::default(), 1).await else {
            return done;
        };
        if log.flushed(appended.last_offset + 1).await.is_err() {
            return done;
        }
    }
    count
}

fn within_a_minute() -> StopAt {
    StopAt {
        micros: Some(60_000_000),
        ..StopAt::default()
    }
}

fn break_segments(disk: &SimDisk) {
    disk.inject(Fault::always(
        FaultKind::InputOutput,
        Operation::Write,
        "bad/t2-0",
    ));
}

#[test]
fn others_go_on_when_a_log_goes_offline_with_a_full_cache() {
    let executor = Executor::with_disk(1, SimDisk::new(1));
    let acknowledged = executor.run_until(within_a_minute(), |env| async move {
        let engine = open(&env, false).await;
        let good = create(&engine, 1, 0).await;
        let bad = create(&engine, 2, 1).await;
        // With its directory made and its first segment begun, it fails only when it is written behind.
        assert_eq!(fill(&bad, 1).await, 1);
        break_segments(env.disk());
        fill(&bad, 100).await;
        assert!(bad.failure().is_some());
        fill(&good, 100).await
    });
    assert_eq!(acknowledged.finished(), 100);
}

/// The batches of the log that can be read, up to its end or to an error.
async fn readable(log: &Log<SimEnvironment>) -> i64 {
    let mut next = 0;
    while next < log.log_end_offset() {
        match log.read(next, 1 << 20, true, ReadLimit::LogEnd).await {
            Ok(read) => next = read.next_offset,
            Err(_) => break,
        }
    }
    next
}

/// Two logs of which the journal holds all and memory not; one of them cannot be written behind.
fn crashed(seed: u64) -> SimDisk {
    let executor = Executor::with_disk(seed, SimDisk::new(seed));
    let life = executor.run_until(within_a_minute(), |env| async move {
        let engine = open(&env, false).await;
        let good = create(&engine, 1, 0).await;
        let bad = create(&engine, 2, 1).await;
        for _ in 0..60 {
            assert_eq!(fill(&bad, 1).await, 1);
            assert_eq!(fill(&good, 1).await, 1);
        }
    });
    life.finished();
    let disk = executor.disk().crash(seed + 100);
    break_segments(&disk);
    disk
}

#[test]
fn a_start_ends_when_a_log_goes_offline_with_a_full_cache() {
    // Which of the two gets to the memory first is a matter of the disk's timing.
    for seed in 0..24 {
        let executor = Executor::with_disk(seed + 200, crashed(seed));
        let end = executor.run_until(within_a_minute(), |env| async move {
            let engine = open(&env, false).await;
            let good = create(&engine, 1, 0).await;
            let bad = create(&engine, 2, 1).await;
            assert!(bad.failure().is_some());
            good.log_end_offset()
        });
        assert_eq!(end.finished(), 60);
    }
}

#[test]
fn what_was_left_in_the_journal_comes_in_when_a_log_goes_offline_with_a_full_cache() {
    for seed in 0..24 {
        let executor = Executor::with_disk(seed + 200, crashed(seed));
        let end = executor.run_until(within_a_minute(), |env| async move {
            let engine = open(&env, true).await;
            let good = create(&engine, 1, 0).await;
            let bad = create(&engine, 2, 1).await;
            assert!(bad.failure().is_none());
            assert_eq!(engine.metrics().parked_batches, 120);
            let (good, _) = join(readable(&good), readable(&bad)).await;
            assert!(bad.failure().is_some());
            good
        });
        assert_eq!(end.finished(), 60);
    }
}
