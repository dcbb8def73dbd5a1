//! Proves that a restart does not make a log forget how new its records are: neither retention nor a search by time goes by the first record appended afterwards.

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
    config.write_behind_age = Duration::from_millis(50);
    config.checkpoint_interval = Duration::from_millis(100);
    config.retention_check_interval = Duration::from_secs(5);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let name = TopicPartition::new("t", 0);
    let settings = LogConfig {
        retention_ms: 7 * DAY,
        ..LogConfig::default()
    };
    let log = engine.create_log(name, TopicId([7; 16]), settings, None);
    let log = log.await.expect("made");
    (engine, log)
}

async fn put(env: &SimEnvironment, log: &Log<SimEnvironment>, age_ms: i64) {
    let now_ms = env.wall_clock_ms();
    let builder = BatchBuilder::new().record(now_ms - age_ms, None, Some(&[1; 100]));
    let batch = Bytes::from(builder.build().expect("a batch"));
    let rules = ProduceRules {
        now_ms,
        ..ProduceRules::default()
    };
    let appended = log.append(batch, &rules, 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

#[test]
fn an_old_record_after_a_restart_does_not_age_the_new_ones_before_it() {
    for clean in [true, false] {
        let executor = Executor::with_disk(1, SimDisk::new(1));
        executor
            .run_until(Default::default(), move |env| async move {
                let (engine, log) = open(&env).await;
                for _ in 0..10 {
                    put(&env, &log, 1000).await;
                }
                env.sleep(Duration::from_secs(1)).await;
                if clean {
                    engine.shutdown_clean().await.expect("stopped");
                }
            })
            .finished();
        let executor = Executor::with_disk(2, executor.disk().crash(3));
        executor
            .run_until(Default::default(), move |env| async move {
                let (_engine, log) = open(&env).await;
                put(&env, &log, 8 * DAY).await;
                let found = log.offset_for_timestamp(env.wall_clock_ms() - DAY).await;
                let found = found.expect("readable").map(|found| found.offset);
                assert_eq!(found, Some(0), "clean: {clean}: a search by time");
                env.sleep(Duration::from_secs(30)).await;
                assert_eq!(log.log_start_offset(), 0, "clean: {clean}: retention");
                assert_eq!(log.log_end_offset(), 11);
            })
            .finished();
    }
}

#[test]
fn what_a_truncation_cuts_away_no_longer_counts_as_newest() {
    let executor = Executor::with_disk(4, SimDisk::new(4));
    executor
        .run_until(Default::default(), move |env| async move {
            let (_engine, log) = open(&env).await;
            put(&env, &log, 2 * DAY).await;
            put(&env, &log, 1000).await;
            log.truncate_to(1).await.expect("truncated");
            let newest = log.max_timestamp_offset().await.expect("readable");
            assert_eq!(newest.map(|newest| newest.offset), Some(0));
        })
        .finished();
}
