//! What the sequences begin with: settings so small that things happen soon, a log, batches that can be told apart, a life on a disk.

use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, RecoveredLog, prepare_directories};
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

/// The time of all records that have no other.
pub const NOW_MS: i64 = 1_704_067_200_000;

/// A log on the simulated disk.
pub type SimLog = Rc<Log<SimEnvironment>>;

/// A small journal that soon goes round, and one log directory.
pub fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 64 << 10,
        journal_file_bytes: 128 << 10,
        journal_bytes_max: 512 << 10,
        tail_cache_bytes: 4 << 20,
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

/// The same with two log directories, where everything happens often.
pub fn two_directories() -> EngineConfig {
    EngineConfig {
        log_dirs: vec![PathBuf::from("/data/a"), PathBuf::from("/data/b")],
        journal_entry_bytes: 64 << 10,
        journal_backlog_bytes: 256 << 10,
        tail_cache_bytes: 8 << 20,
        write_behind_bytes: 32 << 10,
        write_behind_age: Duration::from_millis(50),
        checkpoint_interval: Duration::from_millis(100),
        file_delete_delay: Duration::from_millis(20),
        ..config()
    }
}

/// What a producer's batch must keep to.
pub fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 16 << 20,
        now_ms: NOW_MS,
        ..ProduceRules::default()
    }
}

/// A topic's id.
pub fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

/// A batch of one record of `size` times the byte `fill`; with a producer's sequence, if given.
pub fn batch_at(timestamp: i64, size: usize, fill: u8, sequence: Option<i32>) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some(sequence) = sequence {
        builder = builder.producer(77, 0, sequence);
    }
    let built = builder
        .record(timestamp, None, Some(&vec![fill; size]))
        .build();
    Bytes::from(built.expect("a batch"))
}

/// A batch of one record of `size` times the byte `fill`.
pub fn batch(size: usize, fill: u8) -> Bytes {
    batch_at(NOW_MS, size, fill, None)
}

/// Runs a life to its end; returns the disk as it was then.
pub fn live<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let result = executor.run_until(Default::default(), life).finished();
    (result, executor.disk().clone())
}

/// Runs a life, at most `seconds` of virtual time; `None` when it did not end by then.
pub fn live_within<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    seconds: u64,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (Option<T>, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let stop = StopAt {
        micros: Some(seconds * 1_000_000),
        ..StopAt::default()
    };
    let outcome = match executor.run_until(stop, life) {
        Outcome::Finished(result) => Some(result),
        Outcome::Stopped => None,
    };
    (outcome, executor.disk().clone())
}

/// Opens the engine; says what became of the logs that were there.
pub async fn open_found(
    env: &SimEnvironment,
    config: EngineConfig,
) -> (Engine<SimEnvironment>, Vec<RecoveredLog>) {
    prepare_directories(env, &config).await.expect("prepared");
    Engine::open(env.clone(), config).await.expect("opened")
}

/// Opens the engine, whatever became of the logs.
pub async fn open(env: &SimEnvironment, config: EngineConfig) -> Engine<SimEnvironment> {
    open_found(env, config).await.0
}

/// Opens the engine, with all its logs online.
pub async fn open_whole(env: &SimEnvironment, config: EngineConfig) -> Engine<SimEnvironment> {
    let (engine, found) = open_found(env, config).await;
    for log in found {
        assert_eq!(log.offline, None, "{}", log.topic_partition);
    }
    engine
}

/// Partition 0 of topic `t<number>`.
pub async fn create(engine: &Engine<SimEnvironment>, number: u8) -> SimLog {
    create_in(engine, &format!("t{number}"), number, LogConfig::default()).await
}

/// Partition 0 of a topic, in the first log directory.
pub async fn create_in(
    engine: &Engine<SimEnvironment>,
    name: &str,
    number: u8,
    config: LogConfig,
) -> SimLog {
    let name = TopicPartition::new(name, 0);
    let made = engine.create_log(name, id(number), config, Some(0));
    made.await.expect("made")
}

/// Appends without waiting for the disk; returns the log's end.
pub async fn append(log: &SimLog, batch: Bytes) -> i64 {
    let appended = log.append(batch, &rules(), 1).await.expect("appended");
    appended.last_offset + 1
}

/// Appends one record durably; returns its offset.
pub async fn put(log: &SimLog, batch: Bytes) -> i64 {
    let end = append(log, batch).await;
    log.flushed(end).await.expect("flushed");
    end - 1
}

/// The fill byte of each record, by offset.
pub async fn contents(log: &SimLog) -> Vec<(i64, u8)> {
    let mut found = Vec::new();
    let mut next = log.log_start_offset();
    loop {
        let read = log.read(next, 1 << 20, true, ReadLimit::HighWatermark);
        let read = read.await.expect("readable");
        if read.is_empty() {
            let end = log.high_watermark();
            assert!(next >= end, "nothing to read at {next} of {end}");
            return found;
        }
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a batch");
            assert!(batch.checksum_matches(), "damaged");
            let last = batch.bytes.len() - 2;
            found.push((batch.header.base_offset, batch.bytes[last]));
        }
        next = read.next_offset;
    }
}

/// The fill byte of each record, in order, of a log whose records begin at offset 0.
pub async fn fills(log: &SimLog) -> Vec<u8> {
    let found = contents(log).await;
    found.into_iter().map(|(_, fill)| fill).collect()
}
