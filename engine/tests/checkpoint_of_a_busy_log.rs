//! Proves that the checkpoint of a log that is appended to without a pause ends: it covers what was there when it began and does not run after the producer.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{SimDisk, Timing};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_engine::sim::Executor;

#[test]
fn the_recovery_point_of_a_busy_log_moves_while_it_is_busy() {
    let disk = SimDisk::new(1);
    // Every write takes as long as every other, so that while one is under way to a segment there is always one to the journal that completes.
    disk.set_timing(Timing {
        write_micros: (200, 200),
        stall_probability: 0.0,
        ..Timing::default()
    });
    let executor = Executor::with_disk(1, disk);
    let recorded = executor
        .run_until(Default::default(), move |env| async move {
            let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
            config.journal_first_file_bytes = 64 << 20;
            config.journal_file_bytes = 64 << 20;
            config.checkpoint_interval = Duration::from_millis(100);
            prepare_directories(&env, &config).await.expect("prepared");
            let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
            let name = TopicPartition::new("busy", 0);
            let made = engine.create_log(name, TopicId([1; 16]), LogConfig::default(), None);
            let log = made.await.expect("made");
            // So much that the segment has space reserved for all that follows: nobody has to wait for the turn on the files.
            for _ in 0..8 {
                let first = BatchBuilder::new().record(0, None, Some(&[9; 500_000]));
                let first = Bytes::from(first.build().expect("a batch"));
                let appended = log.append(first, &ProduceRules::default(), 1).await;
                let end = appended.expect("appended").last_offset + 1;
                log.flushed(end).await.expect("flushed");
            }
            let busy = Rc::new(Cell::new(true));
            for producer in 0..4u8 {
                let (task_env, log, busy) = (env.clone(), log.clone(), busy.clone());
                env.spawn("producer", async move {
                    let batch = BatchBuilder::new().record(0, None, Some(&[producer; 100]));
                    let batch = Bytes::from(batch.build().expect("a batch"));
                    task_env
                        .sleep(Duration::from_micros(50 * u64::from(producer)))
                        .await;
                    while busy.get() {
                        let appended = log.append(batch.clone(), &ProduceRules::default(), 1).await;
                        let end = appended.expect("appended").last_offset + 1;
                        log.flushed(end).await.expect("flushed");
                    }
                });
            }
            env.sleep(Duration::from_millis(500)).await;
            busy.set(false);
            let path = PathBuf::from("/data/recovery-point-offset-checkpoint.0");
            env.disk().read_small(&path).await
        })
        .finished();
    let recorded = String::from_utf8(recorded.expect("recovery points were written"));
    let recorded = recorded.expect("text");
    let point = recorded
        .lines()
        .find_map(|line| line.strip_prefix("busy 0 ")?.parse::<i64>().ok());
    assert!(point.is_some_and(|point| point > 8), "{recorded}");
}
