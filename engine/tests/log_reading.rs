//! Every batch comes in fetches of every size, at once, wherever its bytes lie: in the segment file, in the tail, or half in each. Deterministic, on the
//! simulated disk, in virtual time: a read that waits for something that only ages would show as time gone by.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment, StopAt};

type SimLog = Rc<Log<SimEnvironment>>;

/// Nothing is written behind because it ages, everything because memory runs low: what stays is half written.
fn config(tail_cache_bytes: u64) -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.tail_cache_bytes = tail_cache_bytes;
    config.write_behind_age = Duration::from_secs(1_000_000);
    config.checkpoint_interval = Duration::from_secs(1_000_000);
    config
}

async fn create(engine: &Engine<SimEnvironment>, number: u8) -> SimLog {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let created = engine.create_log(name, TopicId([number; 16]), LogConfig::default(), None);
    created.await.expect("made")
}

async fn put(log: &SimLog, fill: u8, size: usize) {
    let batch = BatchBuilder::new().record(1, None, Some(&vec![fill; size]));
    let batch = Bytes::from(batch.build().expect("a batch"));
    let rules = ProduceRules {
        max_message_bytes: 16 << 20,
        ..ProduceRules::default()
    };
    let appended = log.append(batch, &rules, 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

/// Reads the whole log in fetches of `max_bytes`; the fill byte of each batch, in order.
async fn read_all(log: &SimLog, max_bytes: usize) -> Vec<u8> {
    let mut found = Vec::new();
    let mut next = 0;
    while next < log.high_watermark() {
        let read = log
            .read(next, max_bytes, true, ReadLimit::HighWatermark)
            .await
            .expect("readable");
        assert!(
            read.next_offset > next,
            "a read at {next} below the high watermark {} found nothing",
            log.high_watermark()
        );
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a whole batch");
            assert!(batch.checksum_matches());
            found.push(batch.bytes[batch.bytes.len() - 2]);
        }
        next = read.next_offset;
    }
    found
}

/// Fills one log with batches of `size` and then takes the memory away from it, step by step, with another; reads it in fetches of all sizes after each step.
fn in_every_state(seed: u64, size: usize, count: u8) {
    let executor = Executor::with_disk(seed, SimDisk::new(seed));
    let stop = StopAt {
        micros: Some(3_600_000_000),
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop, |env| async move {
        let config = config(4 << 20);
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
        let log = create(&engine, 1).await;
        let other = create(&engine, 2).await;
        let wanted: Vec<u8> = (0..count).collect();
        for fill in &wanted {
            put(&log, *fill, size).await;
        }
        let began = env.now();
        for step in 0..8u8 {
            for max_bytes in [1, 1000, 70_000, 1 << 20, 8 << 20] {
                let found = read_all(&log, max_bytes).await;
                assert_eq!(found, wanted, "fetches of {max_bytes} bytes, step {step}");
            }
            put(&other, step, 600_000).await;
        }
        env.now() - began
    });
    let micros = outcome.finished();
    assert!(
        micros < 60_000_000,
        "reading batches of {size} bytes took {micros} us of virtual time"
    );
}

#[test]
fn batches_larger_than_a_step() {
    for (seed, size) in [(1, 900_000), (2, 1_100_000), (3, 2_500_000), (4, 333_333)] {
        in_every_state(seed, size, 9);
    }
}

#[test]
fn batches_smaller_than_a_step() {
    for (seed, size) in [(1, 100), (2, 4096), (3, 5_000), (4, 65_000)] {
        in_every_state(seed, size, 60);
    }
}
