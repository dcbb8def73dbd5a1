//! Proves that leader epochs never fall in a log: an append under an older epoch is refused and leaves the epoch cache alone, and a segment in which an epoch falls is damage at
//! the next start.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, assign, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment};

async fn open(env: &SimEnvironment) -> (Engine<SimEnvironment>, Rc<Log<SimEnvironment>>) {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.journal_first_file_bytes = 256 << 10;
    config.write_behind_age = Duration::from_millis(50);
    config.checkpoint_interval = Duration::from_millis(100);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let name = TopicPartition::new("t", 0);
    let log = engine.create_log(name, TopicId([7; 16]), LogConfig::default(), None);
    let log = log.await.expect("made");
    (engine, log)
}

fn batch() -> Bytes {
    let builder = BatchBuilder::new().record(0, None, Some(&[1; 100]));
    Bytes::from(builder.build().expect("a batch"))
}

#[test]
fn an_append_under_an_older_epoch_changes_nothing() {
    let executor = Executor::with_disk(1, SimDisk::new(1));
    executor
        .run_until(Default::default(), |env| async move {
            let (_engine, log) = open(&env).await;
            for epoch in [3, 3, 5] {
                let appended = log.append(batch(), &ProduceRules::default(), epoch).await;
                appended.expect("appended");
            }
            let stale = log.append(batch(), &ProduceRules::default(), 4).await;
            assert!(
                matches!(
                    stale,
                    Err(AppendError::StaleLeaderEpoch {
                        given: 4,
                        latest: 5
                    })
                ),
                "{stale:?}"
            );
            let mut raw = batch().to_vec();
            assert!(assign(&mut raw, 3, 2));
            assert!(log.append_raw(raw.into()).await.is_err());
            assert_eq!(log.log_end_offset(), 3);
            assert_eq!(log.end_offset_for_epoch(3), (3, 2));
            assert_eq!(log.epoch_for_offset(2), Some(5));
            // What is cut off no longer counts.
            log.truncate_to(2).await.expect("truncated");
            let again = log.append(batch(), &ProduceRules::default(), 4).await;
            assert_eq!(again.expect("appended").base_offset, 2);
        })
        .finished();
}

#[test]
fn an_epoch_that_falls_before_the_recovery_point_is_damage() {
    let executor = Executor::with_disk(2, SimDisk::new(2));
    executor
        .run_until(Default::default(), |env| async move {
            let (_engine, log) = open(&env).await;
            for _ in 0..10 {
                let appended = log.append(batch(), &ProduceRules::default(), 6).await;
                let end = appended.expect("appended").last_offset + 1;
                log.flushed(end).await.expect("flushed");
            }
            env.sleep(Duration::from_secs(1)).await;
        })
        .finished();
    let disk = executor.disk().crash(3);
    let path = Path::new("/data/t-0/00000000000000000000.log");
    let mut files = disk.files().into_iter();
    let found = files.find(|(name, _)| Path::new("/").join(name) == path);
    let content = found.expect("there").1;
    let fifth = batches(&content).nth(4).expect("there").expect("a batch");
    // The epoch lies in bytes 12 to 15 of the header, outside the checksum: 6 becomes 4.
    let at = fifth.position as u64 + 15;
    disk.flip_bit(path, at, 1).expect("flipped");
    let executor = Executor::with_disk(4, disk);
    executor
        .run_until(Default::default(), |env| async move {
            let (_engine, log) = open(&env).await;
            let reason = log.failure().map(|failure| failure.to_string());
            let reason = reason.unwrap_or_default();
            assert!(
                reason.contains("leader epoch 4 follows 6") && reason.contains("restore"),
                "{reason:?}"
            );
        })
        .finished();
}
