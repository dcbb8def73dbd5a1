//! A disk without a single free byte: what is there is served, records and logs can still be deleted, nothing goes offline, a start works, and appends resume as soon as
//! there is space again.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment, StopAt};

const PLENTY: u64 = 1 << 40;

type SimLog = Rc<Log<SimEnvironment>>;

fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 64 << 10,
        journal_file_bytes: 128 << 10,
        journal_bytes_max: 512 << 10,
        journal_entry_bytes: 64 << 10,
        journal_backlog_bytes: 256 << 10,
        tail_cache_bytes: 8 << 20,
        write_behind_bytes: 32 << 10,
        write_behind_age: Duration::from_millis(50),
        ballast_bytes: 256 << 10,
        checkpoint_interval: Duration::from_millis(500),
        retention_check_interval: Duration::from_secs(1),
        // What is deleted gives nothing back while a test runs.
        file_delete_delay: Duration::from_secs(1_000_000),
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        ..LogConfig::default()
    }
}

fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    }
}

fn batch(size: usize, producer: i64) -> Bytes {
    let builder = BatchBuilder::new().producer(producer, 0, 0).record(
        1_704_067_200_000,
        None,
        Some(&vec![1; size]),
    );
    Bytes::from(builder.build().expect("a batch"))
}

/// Runs a life to its end.
fn live<F: Future<Output = T> + 'static, T: 'static>(
    disk: &SimDisk,
    seed: u64,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let stop = StopAt {
        micros: Some(3_600_000_000),
        ..StopAt::default()
    };
    let result = executor.run_until(stop, life).finished();
    (result, executor.disk().clone())
}

async fn open(env: &SimEnvironment) -> Engine<SimEnvironment> {
    let config = config();
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, found) = Engine::open(env.clone(), config).await.expect("opened");
    let offline: Vec<_> = found.iter().filter_map(|log| log.offline.clone()).collect();
    assert_eq!(offline, Vec::<String>::new());
    engine
}

async fn create(engine: &Engine<SimEnvironment>, number: u8) -> SimLog {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let made = engine.create_log(name, id(number), log_config(), None);
    made.await.expect("made")
}

/// Takes every free byte of the disk away.
async fn fill(env: &SimEnvironment) {
    let mut free = 1;
    // What somebody gives back meanwhile goes as well.
    while free > 0 {
        env.disk().set_capacity_bytes(PLENTY);
        let all = env.disk().available_bytes(Path::new("/data")).await;
        env.disk().set_capacity_bytes(PLENTY - all.expect("asked"));
        let rest = env.disk().available_bytes(Path::new("/data")).await;
        free = rest.expect("asked");
    }
}

/// Appends until there is no space; the number of batches that were acknowledged.
async fn append_until_full(log: &SimLog, producer: i64) -> i64 {
    for number in 0.. {
        // Each from another producer, so that snapshots grow too.
        match log
            .append(batch(9000, producer + number), &rules(), 1)
            .await
        {
            Ok(appended) => {
                let end = appended.last_offset + 1;
                log.flushed(end)
                    .await
                    .expect("what has an offset is flushed");
            }
            Err(AppendError::StorageFull(_)) => return number,
            Err(error) => panic!("only a full disk was met: {error}"),
        }
    }
    unreachable!("the disk is never full");
}

async fn readable(log: &SimLog) -> i64 {
    let mut count = 0;
    let mut next = log.log_start_offset();
    loop {
        let read = log.read(next, 1 << 20, true, ReadLimit::HighWatermark);
        let read = read.await.expect("readable");
        if read.is_empty() {
            return count;
        }
        for batch in batches(&read.pieces.concat()) {
            assert!(batch.expect("a batch").checksum_matches());
            count += 1;
        }
        next = read.next_offset;
    }
}

fn online(engine: &Engine<SimEnvironment>) {
    for log in engine.logs() {
        assert_eq!(log.failure(), None, "{}", log.topic_partition());
    }
}

/// Fills the disk by appending to three logs, and then takes what is left.
async fn full_life(env: &SimEnvironment) -> (Engine<SimEnvironment>, Vec<(SimLog, i64)>) {
    let engine = open(env).await;
    let mut logs = Vec::new();
    for number in 1..=3 {
        let log = create(&engine, number).await;
        for producer in 0..30 {
            let appended = log.append(batch(9000, producer), &rules(), 1).await;
            let end = appended.expect("there is space").last_offset + 1;
            log.flushed(end).await.expect("flushed");
        }
        logs.push((log, 30));
    }
    fill(env).await;
    for (log, count) in &mut logs {
        *count += append_until_full(log, 1000).await;
    }
    fill(env).await;
    env.sleep(Duration::from_secs(20)).await;
    online(&engine);
    (engine, logs)
}

/// What has to work without a byte of space.
async fn use_full(env: &SimEnvironment, engine: &Engine<SimEnvironment>, logs: &[(SimLog, i64)]) {
    fill(env).await;
    for (log, count) in logs {
        assert_eq!(readable(log).await, *count - log.log_start_offset());
    }
    let (kept, count) = &logs[0];
    let start = kept.log_start_offset() + 7;
    let moved = kept.delete_records_before(start).await;
    assert_eq!(moved.expect("records can be deleted"), start);
    assert_eq!(readable(kept).await, count - start);
    fill(env).await;
    kept.set_config(LogConfig {
        retention_bytes: 128 << 10,
        ..log_config()
    });
    env.sleep(Duration::from_secs(5)).await;
    assert!(kept.size_bytes() < 256 << 10, "retention has stopped");
    fill(env).await;
    let retained = kept.log_start_offset();
    let full = kept.append(batch(9000, 5000), &rules(), 1).await;
    assert!(
        matches!(full, Err(AppendError::StorageFull(_))) || full.is_ok(),
        "{full:?}"
    );
    assert!(kept.log_start_offset() >= retained);
    env.sleep(Duration::from_secs(20)).await;
    online(engine);
}

async fn resume(env: &SimEnvironment, engine: &Engine<SimEnvironment>) {
    env.disk().set_capacity_bytes(PLENTY);
    for log in engine.logs() {
        let start = env.now();
        let appended = log.append(batch(20_000, 9000), &rules(), 1).await;
        let end = appended.expect("there is space again").last_offset + 1;
        log.flushed(end).await.expect("flushed");
        assert!(env.now() - start < 1_000_000, "it took too long");
    }
    // And the reserve is there for the next time.
    fill(env).await;
    let log = &engine.logs()[0];
    let start = log.log_start_offset() + 1;
    let moved = log.delete_records_before(start).await;
    assert_eq!(moved.expect("records can be deleted"), start);
}

#[test]
fn everything_but_appending_works_on_a_full_disk() {
    for seed in 0..10 {
        live(&SimDisk::new(seed), seed, |env| async move {
            let (engine, logs) = full_life(&env).await;
            use_full(&env, &engine, &logs).await;
            engine.delete_log(&id(2), 0).await.expect("deleted");
            engine.delete_log(&id(3), 0).await.expect("deleted");
            assert_eq!(engine.logs().len(), 1);
            fill(&env).await;
            env.sleep(Duration::from_secs(20)).await;
            online(&engine);
            resume(&env, &engine).await;
        });
    }
}

#[test]
fn a_start_works_on_a_full_disk() {
    for seed in 0..30 {
        let (counts, disk) = live(&SimDisk::new(seed), seed, move |env| async move {
            let (engine, logs) = full_life(&env).await;
            if seed % 3 == 0 {
                engine.shutdown_clean().await.expect("stopped");
            }
            logs.iter().map(|(_, count)| *count).collect::<Vec<_>>()
        });
        let mut disk = match seed % 3 {
            0 | 1 => disk.crash(seed),
            _ => disk.kill(seed),
        };
        for life in 0..2 {
            let counts = counts.clone();
            let (_, after) = live(&disk, seed + 100 * life, move |env| async move {
                fill(&env).await;
                let engine = open(&env).await;
                let mut logs = Vec::new();
                for (number, count) in (1..=3).zip(counts) {
                    logs.push((create(&engine, number).await, count));
                }
                if life == 1 {
                    use_full(&env, &engine, &logs).await;
                    engine.delete_log(&id(2), 0).await.expect("deleted");
                    resume(&env, &engine).await;
                }
            });
            disk = after.kill(seed);
        }
    }
}

#[test]
fn appends_are_refused_where_no_journal_file_can_be_made_or_freed() {
    live(&SimDisk::new(1), 1, |env| async move {
        let engine = open(&env).await;
        let log = create(&engine, 1).await;
        env.disk().inject(Fault::always(
            FaultKind::OutOfSpace,
            Operation::Resize,
            ".journal",
        ));
        env.disk().inject(Fault::always(
            FaultKind::OutOfSpace,
            Operation::Open,
            ".tmp",
        ));
        append_until_full(&log, 0).await;
        let start = env.now();
        append_until_full(&log, 5000).await;
        assert!(env.now() - start < 100_000, "the next one is told at once");
        online(&engine);
        env.disk().clear_faults();
        let mut waited = 0;
        while log
            .append(batch(9000, 9000 + waited), &rules(), 1)
            .await
            .is_err()
        {
            env.sleep(Duration::from_millis(100)).await;
            waited += 1;
        }
        assert!(waited < 50, "appends resume when there is space again");
        for producer in 0..200 {
            let appended = log
                .append(batch(9000, 20_000 + producer), &rules(), 1)
                .await;
            let end = appended.expect("the journal goes round").last_offset + 1;
            log.flushed(end).await.expect("flushed");
        }
    });
}

#[test]
fn a_checkpoint_without_space_is_tried_again() {
    live(&SimDisk::new(1), 1, |env| async move {
        let engine = open(&env).await;
        let log = create(&engine, 1).await;
        log.append(batch(9000, 500), &rules(), 1)
            .await
            .expect("room");
        env.disk().inject(Fault::always(
            FaultKind::OutOfSpace,
            Operation::Open,
            ".tmp",
        ));
        for producer in 0..20 {
            let appended = log.append(batch(9000, producer), &rules(), 1).await;
            let end = appended.expect("room").last_offset + 1;
            log.flushed(end).await.expect("flushed");
        }
        env.sleep(Duration::from_secs(5)).await;
        online(&engine);
        env.disk().clear_faults();
        env.sleep(Duration::from_secs(5)).await;
        let found = env.disk().files().into_iter().any(|(path, _)| {
            path.to_string_lossy()
                .contains("recovery-point-offset-checkpoint")
        });
        assert!(found, "the checkpoint is tried again");
    });
}
