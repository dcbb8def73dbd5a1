//! What may be under way while a log is deleted: records before an offset are being deleted, or what an offline log needs is being said again. Neither may outlive it, in the
//! files for its successor or in the journal for the next start.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment};

fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 64 << 10,
        journal_file_bytes: 128 << 10,
        journal_bytes_max: 512 << 10,
        tail_cache_bytes: 4 << 20,
        write_behind_age: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(50),
        file_delete_delay: Duration::from_millis(5),
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

async fn open(env: &SimEnvironment) -> Engine<SimEnvironment> {
    let config = config();
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, found) = Engine::open(env.clone(), config).await.expect("opened");
    for log in found {
        assert_eq!(log.offline, None, "{}", log.topic_partition);
    }
    engine
}

async fn create(
    engine: &Engine<SimEnvironment>,
    name: &str,
    number: u8,
) -> Rc<Log<SimEnvironment>> {
    let config = LogConfig {
        segment_bytes: 256 << 10,
        ..LogConfig::default()
    };
    let name = TopicPartition::new(name, 0);
    let made = engine.create_log(name, TopicId([number; 16]), config, None);
    made.await.expect("made")
}

async fn put(log: &Log<SimEnvironment>) {
    let end = append(log).await;
    log.flushed(end).await.expect("flushed");
}

/// Appends without waiting for the disk; returns the log's end.
async fn append(log: &Log<SimEnvironment>) -> i64 {
    let batch = BatchBuilder::new().record(1_704_067_200_000, None, Some(&[1; 5000]));
    let rules = ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    };
    let batch = Bytes::from(batch.build().expect("a batch"));
    let appended = log.append(batch, &rules, 1).await.expect("appended");
    appended.last_offset + 1
}

#[test]
fn a_new_log_start_is_not_written_for_the_next_log_of_the_name() {
    for delay in (0..8000).step_by(200) {
        let executor = Executor::with_disk(delay, SimDisk::new(delay));
        let life = executor.run_until(Default::default(), move |env| async move {
            let engine = open(&env).await;
            let log = create(&engine, "one", 1).await;
            for _ in 0..20 {
                put(&log).await;
            }
            let deleting_records = async {
                for offset in 1..20 {
                    if log.delete_records_before(offset).await.is_err() {
                        return;
                    }
                }
            };
            let anew = async {
                env.sleep(Duration::from_micros(delay)).await;
                let deleted = engine.delete_log(&TopicId([1; 16]), 0).await;
                deleted.expect("deleted");
                let log = create(&engine, "one", 2).await;
                put(&log).await;
                put(&log).await;
            };
            futures_util::join!(deleting_records, anew);
        });
        life.finished();
        let executor = Executor::with_disk(delay, executor.disk().crash(delay));
        let life = executor.run_until(Default::default(), |env| async move {
            let engine = open(&env).await;
            let log = create(&engine, "one", 2).await;
            (log.log_start_offset(), log.high_watermark())
        });
        assert_eq!(life.finished(), (0, 2), "deleted after {delay} us");
    }
}

#[test]
fn an_offline_log_may_be_deleted_while_it_is_said_again() {
    for delay in 0..30 {
        let executor = Executor::with_disk(delay, SimDisk::new(delay));
        let life = executor.run_until(Default::default(), move |env| async move {
            let engine = open(&env).await;
            let bad = create(&engine, "bad", 1).await;
            let good = create(&engine, "good", 2).await;
            env.disk().inject(Fault::always(
                FaultKind::InputOutput,
                Operation::Write,
                "bad-0/0",
            ));
            for _ in 0..20 {
                append(&bad).await;
            }
            // Its age has it written behind, which fails.
            env.sleep(Duration::from_secs(1)).await;
            assert!(bad.failure().is_some());
            let producing = async {
                for _ in 0..300 {
                    put(&good).await;
                }
            };
            let deleting = async {
                env.sleep(Duration::from_micros(delay * 1000)).await;
                let deleted = engine.delete_log(&TopicId([1; 16]), 0).await;
                deleted.expect("deleted");
            };
            futures_util::join!(producing, deleting);
        });
        life.finished();
        let disk = executor.disk().crash(delay);
        disk.clear_faults();
        let executor = Executor::with_disk(delay, disk);
        let life = executor.run_until(Default::default(), |env| async move {
            let engine = open(&env).await;
            let bad = engine.log(&TopicId([1; 16]), 0).is_some();
            (bad, create(&engine, "good", 2).await.high_watermark())
        });
        assert_eq!(life.finished(), (false, 300), "deleted after step {delay}");
    }
}
