//! Proves that what is missing before a recovery point is damage (the log stays offline, its offsets are not given out again), and that logs which end or begin there for a good
//! reason (deleted records, expired segments, truncation, gaps in given offsets) keep opening.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, assign, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment};

type SimLog = Rc<Log<SimEnvironment>>;

async fn open(env: &SimEnvironment, settings: LogConfig) -> (Engine<SimEnvironment>, SimLog) {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.journal_first_file_bytes = 2 << 20;
    config.journal_file_bytes = 2 << 20;
    config.tail_cache_bytes = 4 << 20;
    config.write_behind_age = Duration::from_millis(50);
    config.checkpoint_interval = Duration::from_millis(100);
    config.retention_check_interval = Duration::from_millis(200);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
    let name = TopicPartition::new("t", 0);
    let log = engine.create_log(name, TopicId([7; 16]), settings, None);
    let log = log.await.expect("made");
    (engine, log)
}

fn settings() -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn live<F: Future<Output = T> + 'static, T: 'static>(
    seed: u64,
    disk: &SimDisk,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let result = executor.run_until(Default::default(), life).finished();
    (result, executor.disk().crash(seed + 1000))
}

fn batch(fill: u8) -> Bytes {
    let builder = BatchBuilder::new().record(1_704_067_200_000, None, Some(&[fill; 900]));
    Bytes::from(builder.build().expect("a batch"))
}

async fn put(log: &SimLog, fill: u8) {
    let rules = ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    };
    let appended = log.append(batch(fill), &rules, 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

async fn put_raw(log: &SimLog, fill: u8, offset: i64) {
    let mut raw = batch(fill).to_vec();
    assert!(assign(&mut raw, offset, 1));
    let appended = log.append_raw(raw.into()).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

/// Offset and fill byte of every record.
async fn records(log: &SimLog) -> Vec<(i64, u8)> {
    let (mut next, mut found) = (log.log_start_offset(), Vec::new());
    while next < log.high_watermark() {
        let read = log.read(next, 1 << 20, true, ReadLimit::HighWatermark);
        let read = read.await.expect("readable");
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a batch");
            found.push((batch.header.base_offset, batch.bytes[batch.bytes.len() - 2]));
        }
        next = read.next_offset;
    }
    found
}

fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = disk
        .files()
        .into_iter()
        .map(|(path, _)| PathBuf::from("/").join(path))
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    files.sort();
    files
}

/// A life that appends forty records and lets them be checkpointed, so that the journal need not hold them, and some more that do nothing but move the journal on.
fn checkpointed() -> SimDisk {
    let (_, disk) = live(1, &SimDisk::new(1), |env| async move {
        let (engine, log) = open(&env, settings()).await;
        for fill in 0..40 {
            put(&log, fill).await;
        }
        let other = TopicPartition::new("other", 0);
        let other = engine.create_log(other, TopicId([8; 16]), settings(), None);
        let other = other.await.expect("made");
        for round in 0..600u32 {
            put(&other, round as u8).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    disk
}

#[test]
fn synced_records_that_are_gone_take_the_log_offline() {
    let whole = checkpointed();
    let files: Vec<PathBuf> = log_files(&whole)
        .into_iter()
        .filter(|path| path.starts_with("/data/t-0"))
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    // The last segment lost, emptied, or cut between two batches; and all of them lost.
    let content = |path: &PathBuf| {
        let mut files = whole.files().into_iter();
        let found = files.find(|(name, _)| &PathBuf::from("/").join(name) == path);
        found.expect("there").1
    };
    let last = files.last().expect("some").clone();
    let bytes = content(&last);
    let whole_batches: Vec<usize> = batches(&bytes)
        .map_while(Result::ok)
        .map(|batch| batch.position + batch.bytes.len())
        .collect();
    assert!(whole_batches.len() >= 2);
    let cut = bytes[..whole_batches[0]].to_vec();
    type Harm = (Vec<PathBuf>, Option<(PathBuf, Vec<u8>)>);
    let harms: Vec<Harm> = vec![
        (vec![last.clone()], None),
        (vec![], Some((last.clone(), Vec::new()))),
        (vec![], Some((last.clone(), vec![0; 4096]))),
        (vec![], Some((last.clone(), cut))),
        (files.clone(), None),
    ];
    for (number, (lost, placed)) in harms.into_iter().enumerate() {
        let mut disk = whole.kill(1);
        if let Some((path, bytes)) = placed {
            disk.place(&path, &bytes).expect("placed");
        }
        for life in 0..2 {
            let lost = lost.clone();
            let (failure, after) = live(10 + life, &disk, move |env| async move {
                use ringlog_engine::disk::Disk;
                if life == 0 {
                    for path in &lost {
                        env.disk().remove_file(path).await.expect("removed");
                    }
                    let directory = std::path::Path::new("/data/t-0");
                    env.disk().sync_dir(directory).await.expect("synced");
                }
                let (_engine, log) = open(&env, settings()).await;
                log.failure().map(|failure| failure.to_string())
            });
            let reason = failure.unwrap_or_default();
            assert!(
                reason.contains("restore") && reason.contains("missing"),
                "harm {number}, life {life}: {reason:?}"
            );
            disk = after;
        }
    }
}

/// Runs `work`, crashes, and expects the log back with these offsets and that end.
fn comes_back<F: Future<Output = ()> + 'static>(
    context: &str,
    expected: impl IntoIterator<Item = i64>,
    end: i64,
    work: impl FnOnce(SimEnvironment, SimLog) -> F + 'static,
) {
    let executor = Executor::with_disk(20, SimDisk::new(2));
    executor
        .run_until(Default::default(), |env| async move {
            let (_engine, log) = open(&env, settings()).await;
            work(env, log).await;
        })
        .finished();
    let expected: Vec<i64> = expected.into_iter().collect();
    // The power goes, or the process is killed and what it wrote stays.
    for disk in [executor.disk().crash(21), executor.disk().kill(22)] {
        comes_back_from(context, &disk, &expected, end);
    }
}

fn comes_back_from(context: &str, disk: &SimDisk, expected: &Vec<i64>, end: i64) {
    let mut disk = disk.clone();
    for life in 0..3 {
        let ((failure, found, ends), after) = live(30 + life, &disk, |env| async move {
            let (_engine, log) = open(&env, settings()).await;
            let failure = log.failure();
            (failure, records(&log).await, log.log_end_offset())
        });
        assert_eq!(failure, None, "{context}, life {life}");
        let offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!((&offsets, ends), (expected, end), "{context}, life {life}");
        disk = after;
    }
}

#[test]
fn logs_that_are_empty_for_a_reason_keep_opening() {
    comes_back("nothing appended", [], 0, |_, _| async {});
    for pause_ms in [0, 75, 1000] {
        let pause = Duration::from_millis(pause_ms);
        comes_back(
            "records deleted to the end",
            [],
            40,
            move |env, log| async move {
                for fill in 0..40 {
                    put(&log, fill).await;
                }
                env.sleep(pause).await;
                log.delete_records_before(40).await.expect("deleted");
                env.sleep(pause).await;
            },
        );
        comes_back("everything expired", [], 40, move |env, log| async move {
            for fill in 0..40 {
                put(&log, fill).await;
            }
            env.sleep(pause).await;
            log.set_config(LogConfig {
                retention_ms: 1,
                ..settings()
            });
            env.sleep(Duration::from_secs(2)).await;
            assert_eq!(log.log_start_offset(), 40);
        });
        comes_back(
            "truncated to its start",
            [],
            20,
            move |env, log| async move {
                for fill in 0..40 {
                    put(&log, fill).await;
                }
                env.sleep(pause).await;
                log.delete_records_before(20).await.expect("deleted");
                env.sleep(pause).await;
                log.truncate_to(20).await.expect("truncated");
                env.sleep(pause).await;
            },
        );
        comes_back(
            "a gap at the start",
            [150],
            151,
            move |env, log| async move {
                put_raw(&log, 1, 150).await;
                env.sleep(pause).await;
            },
        );
        comes_back(
            "given offsets with gaps",
            [150, 400, 401],
            402,
            move |env, log| async move {
                put_raw(&log, 1, 150).await;
                env.sleep(pause).await;
                put_raw(&log, 2, 400).await;
                put_raw(&log, 3, 401).await;
                env.sleep(pause).await;
            },
        );
    }
}

#[test]
fn a_truncation_whose_place_has_been_removed_since_is_no_damage() {
    // Truncated in the middle of the first segment, appended beyond it, checkpointed, and the first segment deleted: the journal still holds the truncation.
    comes_back(
        "truncated, then removed",
        30..90,
        90,
        |env, log| async move {
            for fill in 0..20 {
                put(&log, fill).await;
            }
            env.sleep(Duration::from_secs(1)).await;
            log.truncate_to(5).await.expect("truncated");
            for fill in 5..60 {
                put(&log, fill).await;
            }
            env.sleep(Duration::from_secs(1)).await;
            log.delete_records_before(30).await.expect("deleted");
            // A new segment makes the directory durable, the removal with it.
            for fill in 60..90 {
                put(&log, fill).await;
            }
        },
    );
}

#[test]
fn a_removed_segment_whose_name_came_back_is_no_damage() {
    let executor = Executor::with_disk(40, SimDisk::new(3));
    let first = executor
        .run_until(Default::default(), |env| async move {
            let (engine, log) = open(&env, settings()).await;
            for fill in 0..32 {
                put(&log, fill).await;
            }
            env.sleep(Duration::from_secs(1)).await;
            let first = env.disk().files().into_iter();
            let mut first = first.filter(|(path, _)| path.ends_with("00000000000000000000.log"));
            let first = first.next().expect("there").1;
            log.set_config(LogConfig {
                retention_ms: 1,
                ..settings()
            });
            env.sleep(Duration::from_secs(2)).await;
            assert_eq!(log.log_start_offset(), 32);
            log.set_config(settings());
            // Until the journal no longer holds what was removed.
            let other = TopicPartition::new("other", 0);
            let other = engine.create_log(other, TopicId([8; 16]), settings(), None);
            let other = other.await.expect("made");
            for round in 0..1000u32 {
                put(&other, round as u8).await;
            }
            env.sleep(Duration::from_secs(2)).await;
            for fill in 32..36 {
                put(&log, fill).await;
            }
            first
        })
        .finished();
    let disk = executor.disk().kill(41);
    let path = PathBuf::from("/data/t-0/00000000000000000000.log");
    assert!(!log_files(&disk).contains(&path), "removed");
    disk.place(&path, &first).expect("placed");
    comes_back_from("a name that came back", &disk, &vec![32, 33, 34, 35], 36);
}
