//! What the tests of passes begin with: settings so small that things happen soon, a log, records of it, what is there.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches, read_records};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment, StopAt};

pub const NOW: i64 = 1_704_067_200_000;
pub const DIRECTORY: &str = "/data/compacted-0";

pub type SimEngine = Engine<SimEnvironment>;
pub type SimLog = Rc<Log<SimEnvironment>>;

pub fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 256 << 10,
        journal_file_bytes: 256 << 10,
        journal_bytes_max: 2 << 20,
        tail_cache_bytes: 8 << 20,
        write_behind_age: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(20),
        ballast_bytes: 256 << 10,
        // Tests say when.
        cleaner_enabled: false,
        cleaner_io_buffer_bytes: 128 << 10,
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

pub fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 10,
        compact: true,
        delete: false,
        min_cleanable_dirty_millionths: 0,
        delete_retention_ms: 1000,
        ..LogConfig::default()
    }
}

/// Runs a life to its end.
pub fn live<F: Future<Output = T> + 'static, T: 'static>(
    disk: &SimDisk,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(3, disk.clone());
    let stop = StopAt {
        micros: Some(600_000_000),
        ..StopAt::default()
    };
    let result = executor.run_until(stop, life).finished();
    (result, executor.disk().clone())
}

pub async fn open(env: &SimEnvironment, config: EngineConfig) -> (SimEngine, SimLog) {
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let name = TopicPartition::new("compacted", 0);
    let log = engine.create_log(name, TopicId([1; 16]), log_config(), None);
    let log = log.await.expect("made");
    (engine, log)
}

pub fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 4 << 20,
        now_ms: NOW,
        compacted: true,
        ..ProduceRules::default()
    }
}

pub async fn append(log: &SimLog, builder: BatchBuilder) -> Result<i64, AppendError> {
    let batch = Bytes::from(builder.build().expect("a batch"));
    let appended = log.append(batch, &rules(), 1).await?;
    log.flushed(appended.last_offset + 1).await?;
    Ok(appended.base_offset)
}

pub fn record(key: &str, value: Option<&[u8]>) -> BatchBuilder {
    BatchBuilder::new().record(NOW, Some(key.as_bytes()), value)
}

/// Several segments of records of ten keys, all of which are sealed and below the recovery point afterwards.
pub async fn fill(env: &SimEnvironment, log: &SimLog, count: usize) {
    for number in 0..count {
        let key = format!("key-{}", number % 10);
        append(log, record(&key, Some(&[number as u8; 300])))
            .await
            .expect("appended");
    }
    settle(env).await;
}

/// Long enough for checkpoints.
pub async fn settle(env: &SimEnvironment) {
    env.sleep(Duration::from_millis(500)).await;
}

/// Offset, key and value of every record.
pub async fn records(log: &SimLog) -> Vec<(i64, String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.high_watermark() {
        let read = log
            .read(next, 1 << 20, true, ReadLimit::HighWatermark)
            .await;
        let read = read.expect("readable");
        assert!(read.next_offset > next);
        next = read.next_offset;
        let bytes = read.pieces.concat();
        for batch in batches(&bytes) {
            let batch = batch.expect("whole batches");
            let records = read_records(batch.bytes, &batch.header, 8 << 20).expect("records");
            for record in records.iter() {
                let record = record.expect("a record");
                let key = String::from_utf8_lossy(record.key.expect("a key")).into_owned();
                let offset = batch.header.base_offset + i64::from(record.offset_delta);
                found.push((offset, key, record.value.map(<[u8]>::to_vec)));
            }
        }
    }
    found
}

pub async fn names(env: &SimEnvironment) -> Vec<String> {
    let listed = env.disk().list(Path::new(DIRECTORY)).await.expect("listed");
    listed.into_iter().map(|entry| entry.name).collect()
}

pub fn unfinished(names: &[String]) -> bool {
    names
        .iter()
        .any(|name| name.contains(".cleaned") || name.contains(".swap"))
}

/// A configuration with which a pass takes seconds.
pub fn slow() -> EngineConfig {
    EngineConfig {
        cleaner_io_bytes_per_second: 20_000,
        ..config()
    }
}
