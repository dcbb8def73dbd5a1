//! One life of a simulated shard with compacted logs: open, compare with the model, then append, read, truncate, delete and let the cleaner work until the power goes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_engine::batch::{
    BatchBuilder, BatchHeader, Compression, ProduceRules, batches, read_records,
};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, ReadLimit, TopicPartition};
use ringlog_engine::sim::SimEnvironment;

use crate::model::{Model, ModelRecord};

type Shared = Rc<RefCell<Model>>;
type SimLog = Rc<Log<SimEnvironment>>;

/// When records are written, as their timestamps have it.
const WRITTEN_MS: i64 = 1_704_067_200_000;

static PASSES: AtomicU64 = AtomicU64::new(0);

/// Passes of the cleaner in all lives.
pub fn passes() -> u64 {
    PASSES.load(Ordering::Relaxed)
}

fn config(seed: u64) -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data/a"), PathBuf::from("/data/b")]);
    config.journal_first_file_bytes = 64 << 10;
    config.journal_file_bytes = 64 << 10;
    config.journal_bytes_max = 512 << 10;
    config.journal_entry_bytes = 32 << 10;
    config.journal_backlog_bytes = 128 << 10;
    config.journal_depth = 1 + (seed % 3) as usize;
    config.tail_cache_bytes = 256 << 10;
    config.write_behind_bytes = 16 << 10;
    config.write_behind_age = Duration::from_millis(20);
    config.checkpoint_interval = Duration::from_millis(20);
    config.open_files_max = 16;
    config.file_delete_delay = Duration::from_millis(20);
    config.retention_check_interval = Duration::from_millis(50);
    config.cleaner_backoff = Duration::from_millis(5 + seed % 20);
    // Sometimes room for so few keys that a pass ends in the middle of a segment.
    config.cleaner_memory = ringlog_engine::config::CleanerMemory::new(
        if seed.is_multiple_of(3) { 400 } else { 1 << 20 },
        1,
    );
    config.cleaner_io_buffer_bytes = 128 << 10;
    config
}

fn log_config(seed: u64, number: usize) -> LogConfig {
    LogConfig {
        segment_bytes: 3 << (10 + seed % 3),
        index_interval_bytes: 256,
        segment_index_bytes: 4096,
        retention_ms: -1,
        retention_bytes: if number % 4 == 3 { 40_000 } else { -1 },
        compact: true,
        delete: number % 4 == 3,
        min_cleanable_dirty_millionths: [0, 200_000, 500_000][(seed % 3) as usize],
        delete_retention_ms: [0, 30, 300][(seed / 3 % 3) as usize],
        min_compaction_lag_ms: 0,
        ..LogConfig::default()
    }
}

fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 1 << 20,
        now_ms: WRITTEN_MS,
        compacted: true,
        ..ProduceRules::default()
    }
}

/// Opens, verifies, works; ends with a clean stop if it is let.
pub async fn live(env: SimEnvironment, model: Shared, rounds: usize) {
    let engine = open(&env, &model).await;
    verify(&engine, &model, "at the start").await;
    let numbers: Vec<usize> = {
        let mut model = model.borrow_mut();
        let mut there = model.logs.values().filter(|log| !log.deleted).count();
        while there < 3 {
            model.add_log();
            there += 1;
        }
        let logs = model.logs.iter().filter(|(_, log)| !log.deleted);
        logs.map(|(number, _)| *number).collect()
    };
    let work = |number| work(env.clone(), engine.clone(), model.clone(), number, rounds);
    join_all(numbers.into_iter().map(work)).await;
    PASSES.fetch_add(engine.metrics().cleaner.passes, Ordering::Relaxed);
    verify(&engine, &model, "at its end").await;
    engine.shutdown_clean().await.expect("a clean stop");
}

/// Opens and verifies.
pub async fn verify_only(env: SimEnvironment, model: Shared) {
    let engine = open(&env, &model).await;
    verify(&engine, &model, "afterwards").await;
}

/// Fills one log with a few segments and stops, before anything is cleaned.
pub async fn fill(env: SimEnvironment, model: Shared) {
    let seed = model.borrow().seed;
    model.borrow_mut().add_log();
    let config = EngineConfig {
        cleaner_enabled: false,
        ..config(seed)
    };
    prepare_directories(&env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let log = make(&engine, &model, 0).await;
    for _ in 0..12 {
        append_some(&env, &log, &model, 0).await;
    }
    engine.shutdown_clean().await.expect("a clean stop");
}

/// Cleans what `fill` left.
pub async fn clean_once(env: SimEnvironment, model: Shared) {
    let engine = open(&env, &model).await;
    let log = make(&engine, &model, 0).await;
    let before = log.size_bytes();
    engine.clean_now(env.wall_clock_ms()).await;
    assert_eq!(engine.metrics().cleaner.uncleanable, 0);
    assert!(engine.metrics().cleaner.passes > 0 && log.size_bytes() < before);
    verify(&engine, &model, "after the pass").await;
}

async fn open(env: &SimEnvironment, model: &Shared) -> Engine<SimEnvironment> {
    let config = config(model.borrow().seed);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, recovered) = Engine::open(env.clone(), config).await.expect("opened");
    for log in recovered {
        assert_eq!(
            log.offline, None,
            "{} comes back offline",
            log.topic_partition
        );
    }
    engine
}

async fn make(engine: &Engine<SimEnvironment>, model: &Shared, number: usize) -> SimLog {
    let (name, topic_id, seed) = {
        let model = model.borrow();
        let log = &model.logs[&number];
        (log.name.clone(), log.topic_id, model.seed)
    };
    let name = TopicPartition::new(name, number as i32);
    let made = engine.create_log(name, topic_id, log_config(seed, number), None);
    made.await.expect("the log is made")
}

async fn verify(engine: &Engine<SimEnvironment>, model: &Shared, when: &str) {
    assert_eq!(
        engine.metrics().cleaner.uncleanable,
        0,
        "nothing is damaged"
    );
    let numbers: Vec<usize> = model.borrow().logs.keys().copied().collect();
    for number in numbers {
        let (topic_id, seed) = {
            let model = model.borrow();
            (model.logs[&number].topic_id, model.seed)
        };
        let context = format!("seed {seed}, {when}, log {number}");
        let Some(log) = engine.log(&topic_id, number as i32) else {
            let mut model = model.borrow_mut();
            let log = model.log(number);
            log.deleted |= log.deleting;
            assert!(
                log.deleted || log.acknowledged == 0,
                "{context}: it is gone"
            );
            log.truncate(0);
            log.truncating_to = None;
            continue;
        };
        assert!(
            !model.borrow().logs[&number].deleted,
            "{context}: it is there again"
        );
        let found = read_all(&log, &context).await;
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        assert_eq!(
            log.high_watermark(),
            end,
            "{context}: what is found is flushed"
        );
        let mut model = model.borrow_mut();
        let expected = model.log(number);
        expected.deleting = false;
        if number % 4 == 3 {
            // Retention moves it as well.
            expected.start_asked = expected.start_asked.max(start);
        }
        expected.check(start, end, &found, &context);
    }
}

/// Reads a log from its start to its end, as records.
async fn read_all(log: &SimLog, context: &str) -> Vec<ModelRecord> {
    loop {
        let start = log.log_start_offset();
        let mut found = Vec::new();
        let mut next = start;
        while next < log.high_watermark() {
            let read = log.read(next, 5000, true, ReadLimit::HighWatermark).await;
            let read = match read {
                Ok(read) => read,
                Err(_) if log.log_start_offset() > start => break,
                Err(error) => panic!("{context}: {error}"),
            };
            assert!(read.next_offset > next, "{context}: nothing at {next}");
            records_of(&read.pieces.concat(), &mut found);
            next = read.next_offset;
        }
        if log.log_start_offset() == start {
            found.retain(|record| record.offset >= start);
            return found;
        }
    }
}

fn records_of(bytes: &[u8], found: &mut Vec<ModelRecord>) {
    let mut walked = 0;
    for batch in batches(bytes) {
        let batch = batch.expect("whole batches");
        assert!(batch.checksum_matches());
        walked += batch.bytes.len();
        let header = batch.header;
        let records = read_records(batch.bytes, &header, 1 << 20).expect("records");
        for record in records.iter() {
            let record = record.expect("a record");
            found.push(ModelRecord {
                offset: header.base_offset + i64::from(record.offset_delta),
                timestamp: header.base_timestamp + record.timestamp_delta,
                key: record.key.expect("a key").to_vec(),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
    }
    assert_eq!(walked, bytes.len(), "whole batches only");
}

async fn work(
    env: SimEnvironment,
    engine: Engine<SimEnvironment>,
    model: Shared,
    number: usize,
    rounds: usize,
) {
    let log = make(&engine, &model, number).await;
    for _ in 0..rounds {
        match env.world().random_between(0, 99) {
            0..=59 => append_some(&env, &log, &model, number).await,
            60..=79 => check_some(&env, &log, &model, number).await,
            80..=81 => truncate(&env, &log, &model, number).await,
            82..=83 => delete_before(&env, &log, &model, number).await,
            84 if rounds > 100 => {
                model.borrow_mut().log(number).deleting = true;
                let topic_id = log.topic_id();
                let deleted = engine.delete_log(&topic_id, number as i32).await;
                deleted.expect("the log can be deleted");
                model.borrow_mut().log(number).deleted = true;
                return;
            }
            85..=87 => engine.clean_now(env.wall_clock_ms()).await,
            _ => {
                let time = env.world().random_between(1, 60);
                env.sleep(Duration::from_millis(time)).await;
            }
        }
    }
}

/// A batch of a few records of few keys; every fifth record deletes its key.
fn random_batch(env: &SimEnvironment, producer: Option<(i64, i32)>) -> (Bytes, Vec<ModelRecord>) {
    let world = env.world();
    let codec = match world.random_between(0, 7) {
        0 => Compression::Gzip,
        1 => Compression::Snappy,
        2 => Compression::Lz4,
        3 => Compression::Zstd,
        _ => Compression::None,
    };
    let mut builder = BatchBuilder::new().compression(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    let mut records = Vec::new();
    for number in 0..world.random_between(1, 6) as i64 {
        let key = format!("key-{}", world.random_between(0, 14)).into_bytes();
        let large = world.chance(0.02);
        let len = world.random_between(0, if large { 3000 } else { 90 });
        let fill = world.random();
        let value: Vec<u8> = (0..len).map(|i| (fill >> (i % 57)) as u8).collect();
        let value = (!world.chance(0.2)).then_some(value);
        let timestamp = WRITTEN_MS - 1000 + world.random_between(0, 1000) as i64;
        builder = builder.record(timestamp, Some(&key), value.as_deref());
        records.push(ModelRecord {
            offset: number,
            timestamp,
            key,
            value,
        });
    }
    (Bytes::from(builder.build().expect("a batch")), records)
}

async fn append_some(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let idempotent = number % 2 == 1;
    let mut sequence = model.borrow().logs[&number].end() as i32;
    let mut sent = Vec::new();
    for _ in 0..env.world().random_between(1, 10) {
        let producer = idempotent.then_some((number as i64 + 1000, sequence));
        let (batch, records) = random_batch(env, producer);
        sequence += records.len() as i32;
        sent.push((batch, records));
    }
    let rules = &rules();
    let appends = sent.iter().map(|(batch, records)| async move {
        let appended = log.append(batch.clone(), rules, 3).await.expect("appended");
        assert!(!appended.duplicate, "a new batch is no duplicate");
        {
            let mut model = model.borrow_mut();
            let expected = model.log(number);
            for record in records {
                expected.records.push(ModelRecord {
                    offset: appended.base_offset + record.offset,
                    ..record.clone()
                });
            }
        }
        let next = appended.last_offset + 1;
        log.flushed(next).await.expect("flushed");
        let mut model = model.borrow_mut();
        let expected = model.log(number);
        expected.acknowledged = expected.acknowledged.max(next);
    });
    join_all(appends).await;
    if idempotent && env.world().chance(0.3) {
        check_sequence(log, &sent[sent.len() - 1].0).await;
    }
}

/// The last batch sent again is known, and one that leaves a gap is refused.
async fn check_sequence(log: &SimLog, last: &Bytes) {
    let again = log.append(last.clone(), &rules(), 3).await;
    assert!(again.expect("a duplicate is no error").duplicate);
    let header = BatchHeader::parse(last).expect("a header");
    let gap = BatchBuilder::new()
        .producer(header.producer_id, 0, header.last_sequence() + 5)
        .record(WRITTEN_MS, Some(b"gap"), Some(b"gap"))
        .build()
        .expect("a batch");
    let refused = log.append(Bytes::from(gap), &rules(), 3).await;
    assert!(
        matches!(refused, Err(AppendError::Sequence(_))),
        "{refused:?}"
    );
}

/// What a consumer gets from somewhere: the next records that are there, as they were written.
async fn check_some(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64 - 1) as i64;
    let max_bytes = env.world().random_between(1, 10_000) as usize;
    let read = log
        .read(offset, max_bytes, true, ReadLimit::HighWatermark)
        .await;
    let read = match read {
        Ok(read) => read,
        Err(_) if log.log_start_offset() > offset => return,
        Err(error) => panic!("log {number}, at {offset} of {start}..{end}: {error}"),
    };
    assert!(read.next_offset > offset);
    let mut found = Vec::new();
    records_of(&read.pieces.concat(), &mut found);
    let model = model.borrow();
    let written = &model.logs[&number].records;
    for record in found {
        let at = written.binary_search_by_key(&record.offset, |record| record.offset);
        assert_eq!(at.ok().map(|at| &written[at]), Some(&record));
    }
}

async fn truncate(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if start >= end || number % 2 == 1 {
        // A producer would have to begin anew.
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    model.borrow_mut().log(number).truncating_to = Some(offset);
    let now_ends = log.truncate_to(offset).await.expect("truncated");
    assert!(now_ends <= offset);
    let mut model = model.borrow_mut();
    let expected = model.log(number);
    expected.truncating_to = None;
    expected.truncated(now_ends);
    expected.start = expected.start.min(now_ends);
    expected.start_asked = expected.start_asked.min(now_ends);
}

async fn delete_before(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    {
        let mut model = model.borrow_mut();
        let expected = model.log(number);
        expected.start_asked = expected.start_asked.max(offset);
    }
    let starts = log.delete_records_before(offset).await.expect("deleted");
    let mut model = model.borrow_mut();
    let expected = model.log(number);
    assert!(starts >= offset);
    expected.start = expected.start.max(offset);
}
