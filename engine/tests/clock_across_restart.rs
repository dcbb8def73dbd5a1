//! Proves that a wall clock which is far ahead after a restart expires nothing until it has stayed there for the configured time, and that a short restart delays nothing.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment};

const DAY: i64 = 86_400_000;

async fn open(env: &SimEnvironment) -> (Engine<SimEnvironment>, Rc<Log<SimEnvironment>>) {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.journal_first_file_bytes = 256 << 10;
    config.retention_check_interval = Duration::from_secs(10);
    config.clock_jump_confirmation = Duration::from_secs(120);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let name = TopicPartition::new("t", 0);
    let settings = LogConfig {
        retention_ms: DAY,
        ..LogConfig::default()
    };
    let log = engine.create_log(name, TopicId([7; 16]), settings, None);
    let log = log.await.expect("made");
    (engine, log)
}

/// The log start offset half a minute and three minutes after a restart at which the clock has moved by `jump_ms`; the record was `age_ms` old before.
fn starts_after(age_ms: i64, jump_ms: i64) -> (i64, i64) {
    let executor = Executor::with_disk(1, SimDisk::new(1));
    executor
        .run_until(Default::default(), move |env| async move {
            let (engine, log) = open(&env).await;
            let now_ms = env.wall_clock_ms();
            let batch = BatchBuilder::new().record(now_ms - age_ms, None, Some(&[1; 100]));
            let rules = ProduceRules {
                now_ms,
                ..ProduceRules::default()
            };
            let batch = Bytes::from(batch.build().expect("a batch"));
            log.append(batch, &rules, 1).await.expect("appended");
            env.sleep(Duration::from_secs(30)).await;
            engine.shutdown_clean().await.expect("stopped");
        })
        .finished();
    let executor = Executor::with_disk(2, executor.disk().crash(3));
    executor
        .run_until(Default::default(), move |env| async move {
            env.world().jump_wall_clock(jump_ms);
            let (_engine, log) = open(&env).await;
            env.sleep(Duration::from_secs(30)).await;
            let soon = log.log_start_offset();
            env.sleep(Duration::from_secs(150)).await;
            (soon, log.log_start_offset())
        })
        .finished()
}

#[test]
fn a_jump_across_a_restart_is_believed_once_it_has_lasted() {
    assert_eq!(starts_after(0, 10 * DAY), (0, 1));
}

#[test]
fn a_short_restart_delays_nothing() {
    assert_eq!(starts_after(DAY - 60_000, 60_000), (1, 1));
}
