//! The engine on the real disk: what was acknowledged is there after a stop, clean or not; and after any power loss, shown by recording every write of a
//! run, rebuilding the disk as it may have been at many moments, recovering it, and comparing with the acknowledgements given until then.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::disk::recording::{RecordingDisk, Step};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::{DirectEnvironment, Environment};
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, StopAt};

const LOGS: u8 = 3;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

fn config(directory: &Path) -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from(directory)]);
    config.journal_first_file_bytes = 256 << 10;
    config.journal_file_bytes = 256 << 10;
    config.journal_bytes_max = 2 << 20;
    config.write_behind_bytes = 64 << 10;
    config.write_behind_age = Duration::from_millis(50);
    config.checkpoint_interval = Duration::from_millis(100);
    config
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 256 << 10,
        ..LogConfig::default()
    }
}

/// The batch that log `log` gets as its `number`th: its size and bytes follow from both.
fn batch(log: u8, number: u64) -> Bytes {
    let size = match number % 7 {
        0 => 20_000,
        1..=3 => 100 + number as usize % 900,
        _ => 3000,
    };
    let value: Vec<u8> = (0..size)
        .map(|i| (i as u64 * 31 + number * 7 + u64::from(log)) as u8)
        .collect();
    let builder = BatchBuilder::new().record(1_704_067_200_000, None, Some(&value));
    Bytes::from(builder.build().expect("a batch"))
}

async fn open<E: Environment>(env: &E, directory: &Path) -> (Engine<E>, Vec<Rc<Log<E>>>) {
    let config = config(directory);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, recovered) = Engine::open(env.clone(), config).await.expect("opened");
    assert!(
        recovered.iter().all(|log| log.offline.is_none()),
        "{recovered:?}"
    );
    let mut logs = Vec::new();
    for number in 0..LOGS {
        let name = TopicPartition::new("topic", i32::from(number));
        logs.push(
            engine
                .create_log(name, TopicId([number + 1; 16]), log_config(), None)
                .await
                .expect("made"),
        );
    }
    (engine, logs)
}

async fn put<E: Environment>(log: &Log<E>, number: u8, count: std::ops::Range<u64>) {
    let rules = ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    };
    for index in count {
        let appended = log
            .append(batch(number, index), &rules, 1)
            .await
            .expect("appended");
        assert_eq!(appended.base_offset, index as i64, "one record each");
        log.flushed(appended.last_offset + 1)
            .await
            .expect("flushed");
    }
}

/// Checks that a log holds its batches in order, each once and as it was made; returns how many.
async fn check<E: Environment>(log: &Log<E>, number: u8) -> u64 {
    let mut next = 0;
    loop {
        let read = log
            .read(next, 300_000, true, ReadLimit::HighWatermark)
            .await
            .expect("readable");
        if read.is_empty() {
            return next as u64;
        }
        for found in batches(&read.pieces.concat()) {
            let found = found.expect("a batch");
            assert_eq!(found.header.base_offset, next);
            assert!(
                found.bytes[16..] == batch(number, next as u64)[16..],
                "log {number}: batch {next} has changed"
            );
            next = found.header.next_offset();
        }
    }
}

#[test]
fn stops_clean_and_not_lose_nothing() {
    let dir = directory();
    let path = dir.path().canonicalize().expect("there");
    let mut expected = 0;
    for life in 0..5u64 {
        let runtime = compio::runtime::Runtime::new().expect("a runtime");
        let path = path.clone();
        runtime.block_on(async move {
            let env = DirectEnvironment::new(DirectDisk::new());
            let (engine, logs) = open(&env, &path).await;
            for (number, log) in logs.iter().enumerate() {
                assert_eq!(check(log, number as u8).await, expected, "life {life}");
                put(log, number as u8, expected..expected + 60).await;
                assert_eq!(check(log, number as u8).await, expected + 60);
            }
            if life % 2 == 1 {
                engine.shutdown_clean().await.expect("stopped");
                let on_disk: u64 = std::fs::read_dir(path.join("topic-0"))
                    .expect("there")
                    .flatten()
                    .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log"))
                    .map(|entry| entry.metadata().expect("there").len())
                    .sum();
                assert_eq!(
                    on_disk,
                    logs[0].size_bytes(),
                    "segments have their exact size after a clean stop"
                );
            }
        });
        expected += 60;
    }
}

#[test]
fn a_clean_start_reads_no_segment_and_no_journal_entry() {
    let dir = directory();
    let path = dir.path().canonicalize().expect("there");
    for life in 0..2 {
        let path = path.clone();
        let runtime = compio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async move {
            let env = DirectEnvironment::new(DirectDisk::new());
            let (engine, logs) = open(&env, &path).await;
            if life == 0 {
                put(&logs[0], 0, 0..50).await;
            }
            assert_eq!(
                engine.metrics().open_files,
                usize::from(life == 0),
                "no segment is opened"
            );
            assert_eq!(logs[0].log_end_offset(), 50);
            engine.shutdown_clean().await.expect("stopped");
        });
    }
}

#[test]
fn every_power_loss_keeps_what_was_acknowledged() {
    let dir = directory();
    let path = dir.path().canonicalize().expect("there").join("data");
    let disk = RecordingDisk::new(DirectDisk::new(), &path);
    let runtime = compio::runtime::Runtime::new().expect("a runtime");
    let recorded = disk.clone();
    let root = path.clone();
    runtime.block_on(async move {
        let env = DirectEnvironment::new(recorded.clone());
        let (_engine, logs) = open(&env, &root).await;
        let workers = logs.iter().enumerate().map(|(number, log)| {
            let recorded = recorded.clone();
            async move {
                for index in 0..150 {
                    put(log, number as u8, index..index + 1).await;
                    recorded.mark(number as u64 * 1000 + index + 1);
                }
            }
        });
        futures_util::future::join_all(workers).await;
        env.sleep(Duration::from_millis(300)).await;
    });
    drop(runtime);

    let mut acknowledged = [0u64; LOGS as usize];
    let mut replay = disk.replay().expect("recorded");
    let mut steps = 0u64;
    let mut recovered = 0;
    while let Some(step) = replay.step() {
        if let Step::Mark(mark) = step.expect("replayed") {
            acknowledged[(mark / 1000) as usize] = mark % 1000;
        }
        steps += 1;
        if !steps.is_multiple_of(23) {
            continue;
        }
        let executor = Executor::with_disk(steps, replay.crash(steps));
        let root = path.clone();
        let found = executor.run_until(StopAt::default(), move |env| async move {
            let (_engine, logs) = open(&env, &root).await;
            let mut found = Vec::new();
            for (number, log) in logs.iter().enumerate() {
                found.push(check(log, number as u8).await);
            }
            found
        });
        for (number, found) in found.finished().into_iter().enumerate() {
            assert!(
                found >= acknowledged[number],
                "step {steps}, log {number}: {} acknowledged, {found} found",
                acknowledged[number]
            );
        }
        recovered += 1;
    }
    assert!(recovered > 20, "{recovered} images of {steps} steps");
    assert!(
        acknowledged.iter().all(|count| *count == 150),
        "the recording is complete: {acknowledged:?}"
    );
}
