//! A clean stop while logs are made, written, truncated and deleted: whatever was acknowledged by then is there at the next start, which believes the marker and reads no journal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 64 << 10,
        journal_file_bytes: 128 << 10,
        tail_cache_bytes: 4 << 20,
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    }
}

fn batch() -> Bytes {
    let builder = BatchBuilder::new().record(1_704_067_200_000, None, Some(&[7; 300]));
    Bytes::from(builder.build().expect("a batch"))
}

async fn open(env: &SimEnvironment) -> Engine<SimEnvironment> {
    let config = config();
    prepare_directories(env, &config).await.expect("prepared");
    Engine::open(env.clone(), config).await.expect("opened").0
}

/// Makes a log and writes to it until somebody refuses; notes the end of what was acknowledged.
async fn produce(
    engine: &Engine<SimEnvironment>,
    number: u8,
    acknowledged: &RefCell<BTreeMap<u8, i64>>,
) {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let made = engine
        .create_log(name, TopicId([number; 16]), LogConfig::default(), None)
        .await;
    let Ok(log) = made else { return };
    while let Ok(appended) = log.append(batch(), &rules(), 1).await {
        let end = appended.last_offset + 1;
        if log.flushed(end).await.is_err() {
            return;
        }
        acknowledged.borrow_mut().insert(number, end);
    }
}

#[test]
fn what_is_acknowledged_while_the_broker_stops_is_there_afterwards() {
    for seed in 0..60u64 {
        let acknowledged = Rc::new(RefCell::new(BTreeMap::new()));
        let shared = acknowledged.clone();
        let executor = Executor::with_disk(seed, SimDisk::new(seed));
        let stop = StopAt {
            micros: Some(600_000_000),
            ..StopAt::default()
        };
        let stopped = executor.run_until(stop, move |env| async move {
            let engine = open(&env).await;
            let producing = (1..=40u8).map(|number| {
                let (engine, env, shared) = (&engine, &env, &shared);
                async move {
                    // One after the other, before, during and after the stop.
                    let late = Duration::from_micros(u64::from(number) * 300);
                    env.sleep(late).await;
                    produce(engine, number, shared).await;
                }
            });
            let stopping = async {
                env.sleep(Duration::from_micros(2000 + seed * 50)).await;
                engine.shutdown_clean().await.expect("stopped");
            };
            futures_util::join!(futures_util::future::join_all(producing), stopping);
        });
        assert_eq!(stopped, Outcome::Finished(()), "seed {seed} hangs");
        let executor = Executor::with_disk(seed, executor.disk().crash(seed));
        let stop = StopAt {
            micros: Some(600_000_000),
            ..StopAt::default()
        };
        let ends = executor
            .run_until(stop, |env| async move {
                let engine = open(&env).await;
                let logs = engine.logs();
                let ends = logs
                    .iter()
                    .map(|log| (log.topic_id().0[0], log.high_watermark()));
                ends.collect::<BTreeMap<u8, i64>>()
            })
            .finished();
        for (number, end) in &*acknowledged.borrow() {
            assert!(
                ends.get(number).is_some_and(|found| found >= end),
                "seed {seed}: log {number} ends at {:?}, {end} was acknowledged",
                ends.get(number)
            );
        }
    }
}
