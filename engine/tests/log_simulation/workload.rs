//! One life of a simulated shard: open, compare with the model, then append, read, truncate and delete at random until the power goes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicPartition};
use ringlog_engine::sim::SimEnvironment;

use crate::model::{Model, ModelBatch};
use crate::transactions::{check_aborted, check_stable, is_transactional, transact_some};

pub type Shared = Rc<RefCell<Model>>;
pub type SimLog = Rc<Log<SimEnvironment>>;

/// Batches that starts have left in the journal, and those that lives which ended well have brought in.
pub static PARKED: AtomicU64 = AtomicU64::new(0);
pub static SETTLED: AtomicU64 = AtomicU64::new(0);

pub fn config(seed: u64) -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data/a"), PathBuf::from("/data/b")]);
    config.journal_first_file_bytes = 64 << 10;
    config.journal_file_bytes = 64 << (10 + seed % 3);
    config.journal_bytes_max = 512 << 10;
    config.journal_entry_bytes = 32 << 10;
    config.journal_backlog_bytes = 128 << 10;
    config.journal_depth = 1 + (seed % 4) as usize;
    config.tail_cache_bytes = 256 << 10;
    config.write_behind_bytes = 16 << 10;
    config.write_behind_age = Duration::from_millis(30);
    config.checkpoint_interval = Duration::from_millis(60);
    if seed % 4 == 3 {
        // As the broker has them: whoever waits may not count on them.
        config.write_behind_age = Duration::from_secs(5);
        config.checkpoint_interval = Duration::from_secs(30);
    }
    // What the journal holds stays there after a crash, or that of some logs does, or nothing.
    config.parked_batch_bytes_min = [0, 0, 1000, u64::MAX][(seed / 4 % 4) as usize];
    config.open_files_max = 16;
    config.file_delete_delay = Duration::from_millis(20);
    config.retention_check_interval = Duration::from_millis(50);
    config
}

pub fn log_config(seed: u64) -> LogConfig {
    LogConfig {
        segment_bytes: 24 << (10 + seed % 3),
        index_interval_bytes: 512,
        segment_index_bytes: 4096,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

pub fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 1 << 20,
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    }
}

/// Opens, verifies, works. With `to_the_end`, ends with a clean stop; otherwise works until stopped.
pub async fn live(env: SimEnvironment, model: Shared, life: u64, to_the_end: bool) {
    let engine = open(&env, &model).await;
    PARKED.fetch_add(engine.metrics().parked_batches, Ordering::Relaxed);
    // Otherwise what was left in the journal is brought in by whoever works with it first, or is left there by this life as well.
    let read = !(model.borrow().seed + life).is_multiple_of(3);
    verify_logs(&env, &engine, &model, &format!("life {life}"), read).await;
    let numbers: Vec<usize> = {
        let mut model = model.borrow_mut();
        while model.logs.values().filter(|log| !log.deleted).count() < 4 {
            model.add_log();
        }
        model
            .logs
            .iter()
            .filter(|(_, log)| !log.deleted)
            .map(|(number, _)| *number)
            .collect()
    };
    watch(&env, &engine, &model);
    let rounds = if to_the_end { 20 } else { 1000 };
    join_all(
        numbers
            .into_iter()
            .map(|number| work(env.clone(), engine.clone(), model.clone(), number, rounds)),
    )
    .await;
    verify(&env, &engine, &model, &format!("life {life}, at its end")).await;
    SETTLED.fetch_add(engine.metrics().settled_batches, Ordering::Relaxed);
    engine.shutdown_clean().await.expect("a clean stop");
}

/// Fails when nothing has been written for a minute although somebody waits: something is stuck.
fn watch(env: &SimEnvironment, engine: &Engine<SimEnvironment>, model: &Shared) {
    let (task_env, engine, model) = (env.clone(), engine.clone(), model.clone());
    env.spawn("watch", async move {
        let mut before = engine.metrics();
        loop {
            task_env.sleep(Duration::from_secs(60)).await;
            let now = engine.metrics();
            let doing: Vec<String> = model
                .borrow()
                .logs
                .values()
                .map(|log| log.doing.clone())
                .collect();
            assert_ne!(
                now.journal.entries,
                before.journal.entries,
                "seed {}: stuck at {doing:?} with {now:?}",
                model.borrow().seed
            );
            before = now;
        }
    });
}

/// Opens and verifies.
pub async fn verify_only(env: SimEnvironment, model: Shared) {
    let engine = open(&env, &model).await;
    verify(&env, &engine, &model, "after a clean stop").await;
}

/// Opens a disk on which a bit of a segment or an index has rotted, and reads everything: what is served is what was written, in order and without a hole, and where something is
/// missing there is an error. Returns how many logs answered with one.
pub async fn verify_rotten(env: SimEnvironment, model: Shared) -> usize {
    let config = config(model.borrow().seed);
    let (engine, _) = Engine::open(env.clone(), config)
        .await
        .expect("rot in one log does not keep the engine from opening");
    let (seed, logs) = {
        let model = model.borrow();
        (model.seed, model.logs.clone())
    };
    let mut damaged = 0;
    for (number, expected) in logs.iter().filter(|(_, log)| !log.deleted) {
        let context = format!("seed {seed}, rotten, log {number}");
        let Some(log) = engine.log(&expected.topic_id, 0) else {
            assert_eq!(expected.acknowledged, 0, "{context}: gone");
            continue;
        };
        if log.failure().is_some() {
            damaged += 1;
            continue;
        }
        assert_eq!(log.log_end_offset(), expected.end(), "{context}: the end");
        let start = log.log_start_offset();
        let first = expected
            .batches
            .partition_point(|batch| batch.last_offset < start);
        for from in first..expected.batches.len() {
            let offset = expected.batches[from].base_offset.max(start);
            let read = log.read(offset, 30_000, true, ReadLimit::HighWatermark);
            let bytes = match read.await {
                Ok(read) => read.pieces.concat(),
                Err(_) => {
                    damaged += 1;
                    break;
                }
            };
            let served = batches(&bytes).map(|batch| batch.expect("whole batches"));
            let mut count = 0;
            for (batch, expected) in served.zip(&expected.batches[from..]) {
                // What its checksum covers is for the consumer to check, as with Kafka.
                if !batch.checksum_matches() {
                    count += 1;
                    break;
                }
                let found = (batch.header.base_offset, &batch.bytes[16..]);
                let written = (expected.base_offset, &expected.content[..]);
                assert!(found == written, "{context}: read at {offset}");
                count += 1;
            }
            assert!(count > 0, "{context}: an empty answer at {offset}");
        }
    }
    damaged
}

async fn open(env: &SimEnvironment, model: &Shared) -> Engine<SimEnvironment> {
    let config = config(model.borrow().seed);
    prepare_directories(env, &config)
        .await
        .expect("the directories can be prepared");
    let (engine, recovered) = Engine::open(env.clone(), config)
        .await
        .expect("the engine opens");
    for log in recovered {
        assert_eq!(
            log.offline, None,
            "{} comes back offline",
            log.topic_partition
        );
    }
    engine
}

async fn verify(
    env: &SimEnvironment,
    engine: &Engine<SimEnvironment>,
    model: &Shared,
    context: &str,
) {
    verify_logs(env, engine, model, context, true).await;
}

/// Without `read` it goes by what the logs say of themselves, and touches no batch.
async fn verify_logs(
    env: &SimEnvironment,
    engine: &Engine<SimEnvironment>,
    model: &Shared,
    context: &str,
    read: bool,
) {
    let numbers: Vec<usize> = model.borrow().logs.keys().copied().collect();
    for number in numbers {
        let (topic_id, name) = {
            let model = model.borrow();
            (
                model.logs[&number].topic_id,
                model.logs[&number].name.clone(),
            )
        };
        let log = engine.log(&topic_id, 0);
        let context = format!(
            "seed {}, {context}, log {number} ({name})",
            model.borrow().seed
        );
        let Some(log) = log else {
            let mut model = model.borrow_mut();
            let log = model.logs.get_mut(&number).expect("known");
            if log.deleting {
                log.deleted = true;
            }
            assert!(
                log.deleted || log.acknowledged == 0,
                "{context}: it is gone with {} acknowledged batches",
                log.acknowledged
            );
            log.truncate(0);
            log.truncating_to = None;
            continue;
        };
        assert!(
            !model.borrow().logs[&number].deleted,
            "{context}: it was deleted and is there again"
        );
        let found = match read {
            true => read_all(&log, &context).await,
            false => {
                let (start, end) = (log.log_start_offset(), log.log_end_offset());
                let batches = model.borrow().logs[&number].batches.clone();
                let is_there =
                    |batch: &ModelBatch| batch.last_offset >= start && batch.last_offset < end;
                batches.into_iter().filter(is_there).collect()
            }
        };
        let expected = {
            let mut model = model.borrow_mut();
            let expected = model.logs.get_mut(&number).expect("known");
            expected.deleting = false;
            expected.check(log.log_start_offset(), &found, &context);
            assert_eq!(
                log.high_watermark(),
                log.log_end_offset(),
                "{context}: everything found is flushed"
            );
            check_stable(&log, expected, &context);
            expected.clone()
        };
        for _ in 0..if read { 3 } else { 0 } {
            check_aborted(env, &log, &expected, &context).await;
        }
    }
}

pub async fn read_all(log: &SimLog, context: &str) -> Vec<ModelBatch> {
    let mut found: Vec<ModelBatch> = Vec::new();
    let mut next = log.log_start_offset();
    loop {
        let read = log
            .read(next, 20_000, true, ReadLimit::HighWatermark)
            .await
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        if read.is_empty() {
            assert!(
                next >= read.high_watermark,
                "{context}: nothing to read at {next}, the high watermark is {}",
                read.high_watermark
            );
            return found;
        }
        let bytes: Vec<u8> = read.pieces.concat();
        let mut walked = 0;
        for batch in batches(&bytes) {
            let batch = batch.unwrap_or_else(|error| panic!("{context}: at {next}: {error}"));
            assert!(
                batch.checksum_matches(),
                "{context}: the batch at {} is damaged",
                batch.header.base_offset
            );
            walked += batch.bytes.len();
            found.push(model_batch(batch.header.base_offset, batch.bytes));
        }
        assert_eq!(walked, bytes.len(), "{context}: whole batches only");
        assert!(read.next_offset > next, "{context}: reading makes progress");
        next = read.next_offset;
    }
}

pub fn model_batch(base_offset: i64, bytes: &[u8]) -> ModelBatch {
    let header = ringlog_engine::batch::BatchHeader::parse(bytes).expect("a batch");
    ModelBatch {
        base_offset,
        last_offset: base_offset + i64::from(header.last_offset_delta),
        content: bytes[16..].to_vec(),
        sequence: header.has_producer_id().then_some(header.base_sequence),
    }
}

/// A batch of random size: mostly small, some large enough to be written from the chunk.
pub fn random_batch(env: &SimEnvironment, producer: Option<(i64, i32)>) -> Bytes {
    let world = env.world();
    let size = match world.random_between(0, 9) {
        0..=5 => world.random_between(1, 900),
        6..=7 => world.random_between(900, 9000),
        8 => world.random_between(9000, 40_000),
        _ => world.random_between(1, 20_000),
    };
    let records = world.random_between(1, 3);
    let mut builder = BatchBuilder::new();
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    for _ in 0..records {
        let fill = env.random();
        let value: Vec<u8> = (0..size / records + 1)
            .map(|i| (fill >> (i % 57)) as u8)
            .collect();
        builder = builder.record(1_704_067_200_000, None, Some(&value));
    }
    Bytes::from(builder.build().expect("a batch"))
}

async fn work(
    env: SimEnvironment,
    engine: Engine<SimEnvironment>,
    model: Shared,
    number: usize,
    rounds: usize,
) {
    let (topic_id, name, seed) = {
        let model = model.borrow();
        (
            model.logs[&number].topic_id,
            model.logs[&number].name.clone(),
            model.seed,
        )
    };
    let created = engine
        .create_log(
            TopicPartition::new(name, 0),
            topic_id,
            log_config(seed),
            None,
        )
        .await;
    let log = created.expect("the log is made");
    for _ in 0..rounds {
        let choice = env.world().random_between(0, 99);
        model
            .borrow_mut()
            .logs
            .get_mut(&number)
            .expect("known")
            .doing = format!("choice {choice}");
        match choice {
            0..=79 if is_transactional(number) => {
                transact_some(&env, &log, &model, number).await;
            }
            0..=79 => append_some(&env, &log, &model, number).await,
            80..=89 => check_some(&env, &log, &model, number).await,
            90..=93 => truncate(&env, &log, &model, number).await,
            94..=95 => delete_before(&env, &log, &model, number).await,
            96 => {
                model
                    .borrow_mut()
                    .logs
                    .get_mut(&number)
                    .expect("known")
                    .deleting = true;
                engine
                    .delete_log(&topic_id, 0)
                    .await
                    .expect("the log can be deleted");
                model
                    .borrow_mut()
                    .logs
                    .get_mut(&number)
                    .expect("known")
                    .deleted = true;
                return;
            }
            _ => {
                env.sleep(Duration::from_millis(env.world().random_between(1, 100)))
                    .await
            }
        }
    }
}

async fn append_some(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let idempotent = number % 4 == 1;
    let count = env.world().random_between(1, 12);
    let mut sequence = model.borrow().logs[&number].next_sequence;
    let mut sent = Vec::new();
    for _ in 0..count {
        let batch = random_batch(env, idempotent.then_some((number as i64 + 1000, sequence)));
        let header = ringlog_engine::batch::BatchHeader::parse(&batch).expect("a batch");
        sequence += header.record_count;
        sent.push(batch);
    }
    let rules = rules();
    let appends = sent.iter().map(|batch| async {
        let appended = log
            .append(batch.clone(), &rules, 3)
            .await
            .expect("appended");
        assert!(!appended.duplicate, "a new batch is no duplicate");
        {
            let mut model = model.borrow_mut();
            let expected = model.logs.get_mut(&number).expect("known");
            assert_eq!(
                appended.base_offset,
                expected.end(),
                "offsets follow each other"
            );
            let mut added = model_batch(appended.base_offset, batch);
            added.last_offset = appended.last_offset;
            if let Some(sequence) = added.sequence {
                expected.next_sequence =
                    sequence + (added.last_offset - added.base_offset) as i32 + 1;
            }
            expected.batches.push(added);
        }
        log.flushed(appended.last_offset + 1)
            .await
            .expect("flushed");
        assert!(log.high_watermark() > appended.last_offset);
        model
            .borrow_mut()
            .logs
            .get_mut(&number)
            .expect("known")
            .acknowledge(appended.last_offset + 1);
    });
    join_all(appends).await;
    // A retry of the last batch is a duplicate with the original's offsets.
    if idempotent && env.world().chance(0.3) {
        let again = log
            .append(sent[sent.len() - 1].clone(), &rules, 3)
            .await
            .expect("a duplicate is no error");
        let model = model.borrow();
        let last = model.logs[&number].batches.last().expect("just appended");
        assert!(again.duplicate);
        assert_eq!(
            (again.base_offset, again.last_offset),
            (last.base_offset, last.last_offset)
        );
    }
}

async fn check_some(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (expected, seed) = {
        let model = model.borrow();
        (model.logs[&number].clone(), model.seed)
    };
    check_aborted(env, log, &expected, &format!("seed {seed}, log {number}")).await;
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64 - 1) as i64;
    let max_bytes = env.world().random_between(1, 60_000) as usize;
    let read = log
        .read(offset, max_bytes, true, ReadLimit::HighWatermark)
        .await
        .expect("readable");
    let bytes = read.pieces.concat();
    let model = model.borrow();
    let expected = &model.logs[&number];
    let first = expected
        .batches
        .partition_point(|batch| batch.last_offset < offset);
    let mut count = 0;
    for (batch, expected) in batches(&bytes).zip(&expected.batches[first..]) {
        let batch = batch.expect("a batch");
        assert_eq!(
            batch.header.base_offset, expected.base_offset,
            "seed {}, log {number}: read at {offset}",
            model.seed
        );
        assert!(
            batch.bytes[16..] == expected.content[..],
            "seed {}, log {number}: content at {offset}",
            model.seed
        );
        count += 1;
    }
    assert!(
        count > 0,
        "seed {}, log {number}: nothing at {offset} of {start}..{end}",
        model.seed
    );
}

async fn truncate(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    model
        .borrow_mut()
        .logs
        .get_mut(&number)
        .expect("known")
        .truncating_to = Some(offset);
    let now_ends = log.truncate_to(offset).await.expect("truncated");
    let mut model = model.borrow_mut();
    let seed = model.seed;
    let expected = model.logs.get_mut(&number).expect("known");
    expected.truncating_to = None;
    expected.truncate(offset);
    assert_eq!(
        now_ends,
        expected.end().max(start.min(now_ends)),
        "the log ends at the batch's beginning"
    );
    let context = format!("seed {seed}, log {number}, truncated to {now_ends}");
    check_stable(log, expected, &context);
}

async fn delete_before(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    {
        let mut model = model.borrow_mut();
        let expected = model.logs.get_mut(&number).expect("known");
        expected.start_asked = expected.start_asked.max(offset);
    }
    let starts = log.delete_records_before(offset).await.expect("deleted");
    let mut model = model.borrow_mut();
    let expected = model.logs.get_mut(&number).expect("known");
    assert_eq!(starts, offset);
    expected.start = expected.start.max(offset);
}
