//! A truncation that fails, or is given up, between the journal and the files: the log goes offline, the journal keeps what finishes it however long the shard lives on,
//! and the next start finds the log truncated.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
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
        checkpoint_interval: Duration::from_millis(50),
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

async fn create(engine: &Engine<SimEnvironment>, number: u8) -> Rc<Log<SimEnvironment>> {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let made = engine.create_log(name, TopicId([number; 16]), LogConfig::default(), None);
    made.await.expect("made")
}

async fn put(log: &Log<SimEnvironment>) {
    let batch = BatchBuilder::new().record(1_704_067_200_000, None, Some(&[1; 5000]));
    let rules = ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    };
    let batch = Bytes::from(batch.build().expect("a batch"));
    let appended = log.append(batch, &rules, 1).await.expect("appended");
    let flushed = log.flushed(appended.last_offset + 1).await;
    flushed.expect("flushed");
}

/// How the truncation ends early.
#[derive(Clone, Copy, Debug)]
enum End {
    Fails,
    GivenUpAfter(u64),
}

fn truncate_and_restart(end: End) {
    let executor = Executor::with_disk(1, SimDisk::new(1));
    let life = executor.run_until(Default::default(), move |env| async move {
        let engine = open(&env).await;
        let (cut, other) = (create(&engine, 1).await, create(&engine, 2).await);
        for _ in 0..10 {
            put(&cut).await;
        }
        env.sleep(Duration::from_millis(300)).await;
        match end {
            End::Fails => {
                env.disk().inject(Fault::always(
                    FaultKind::InputOutput,
                    Operation::Resize,
                    "t1-0/",
                ));
                cut.truncate_to(4).await.expect_err("its disk refuses");
                env.disk().clear_faults();
            }
            End::GivenUpAfter(micros) => {
                let truncating = std::pin::pin!(cut.truncate_to(4));
                let sleep = std::pin::pin!(env.sleep(Duration::from_micros(micros)));
                if let Either::Left((done, _)) = select(truncating, sleep).await {
                    assert_eq!(done, Ok(4));
                }
            }
        }
        let begun = cut.failure().is_some() || cut.log_end_offset() == 4;
        // The journal goes round several times.
        for _ in 0..300 {
            put(&other).await;
        }
        begun
    });
    let begun = life.finished();
    let executor = Executor::with_disk(2, executor.disk().crash(3));
    let life = executor.run_until(Default::default(), |env| async move {
        let engine = open(&env).await;
        create(&engine, 1).await.log_end_offset()
    });
    let expected = if begun { 4 } else { 10 };
    assert_eq!(life.finished(), expected, "{end:?}");
}

#[test]
fn a_failed_truncation_is_finished_by_the_next_start() {
    truncate_and_restart(End::Fails);
}

#[test]
fn a_truncation_given_up_is_whole_or_not_there() {
    for micros in (0..12_000).step_by(150) {
        truncate_and_restart(End::GivenUpAfter(micros));
    }
}
