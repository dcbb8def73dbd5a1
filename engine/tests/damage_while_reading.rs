//! Proves that damage a checksum does not cover (a batch's length or offset, an index entry, a whole segment) is reported to the reader: no endless read, no empty answer
//! below the high watermark, no records skipped in silence.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::log::{Log, ReadError, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment, StopAt};

type SimLog = Rc<Log<SimEnvironment>>;

const BATCHES: i64 = 60;

async fn open(env: &SimEnvironment) -> (Engine<SimEnvironment>, SimLog) {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.journal_first_file_bytes = 256 << 10;
    config.journal_file_bytes = 256 << 10;
    config.tail_cache_bytes = 4 << 20;
    config.write_behind_age = Duration::from_millis(100);
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, recovered) = Engine::open(env.clone(), config).await.expect("opened");
    assert!(recovered.iter().all(|log| log.offline.is_none()));
    let settings = LogConfig {
        segment_bytes: 32 << 10,
        index_interval_bytes: 3000,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let name = TopicPartition::new("t", 0);
    let log = engine.create_log(name, TopicId([7; 16]), settings, None);
    let log = log.await.expect("made");
    (engine, log)
}

fn live<F: Future<Output = T> + 'static, T: 'static>(
    seed: u64,
    disk: &SimDisk,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let stop = StopAt {
        steps: Some(200_000),
        ..StopAt::default()
    };
    let result = executor.run_until(stop, life).finished();
    (result, executor.disk().crash(seed + 1000))
}

/// Sixty batches of ten records and about a kilobyte in two segments, and a clean stop.
fn filled() -> SimDisk {
    let (_, disk) = live(1, &SimDisk::new(1), |env| async move {
        let (engine, log) = open(&env).await;
        for fill in 0..BATCHES as u8 {
            let mut builder = BatchBuilder::new();
            for _ in 0..10 {
                builder = builder.record(1_704_067_200_000, None, Some(&[fill; 90]));
            }
            let batch = Bytes::from(builder.build().expect("a batch"));
            let rules = ProduceRules {
                now_ms: 1_704_067_200_000,
                ..ProduceRules::default()
            };
            let appended = log.append(batch, &rules, 1).await.expect("appended");
            log.flushed(appended.last_offset + 1)
                .await
                .expect("flushed");
        }
        engine.shutdown_clean().await.expect("stopped");
    });
    disk
}

fn path(base: i64, kind: &str) -> PathBuf {
    PathBuf::from(format!("/data/t-0/{base:020}.{kind}"))
}

fn content(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let found = disk.files().into_iter();
    let mut found = found.filter(|(name, _)| Path::new("/").join(name) == path);
    found.next().expect("there").1
}

/// Positions and base offsets of the batches in the first segment, and where the second begins.
fn layout(disk: &SimDisk) -> (Vec<(u64, i64)>, i64) {
    let bytes = content(disk, &path(0, "log"));
    let all = batches(&bytes).map(|batch| {
        let batch = batch.expect("whole");
        (batch.position as u64, batch.header.base_offset)
    });
    let all: Vec<_> = all.collect();
    let second = all.last().expect("some").1 + 10;
    (all, second)
}

/// Reads the log as a consumer does, from `start` on; the base offsets seen, and the error that ended it.
async fn consume(log: &SimLog, start: i64, max_bytes: usize) -> (Vec<i64>, Option<ReadError>) {
    let (mut next, mut seen) = (start, Vec::new());
    while next < log.high_watermark() {
        let read = log.read(next, max_bytes, true, ReadLimit::HighWatermark);
        let read = match read.await {
            Ok(read) => read,
            Err(error) => return (seen, Some(error)),
        };
        assert!(
            !read.is_empty(),
            "an empty answer at {next} below the high watermark"
        );
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("whole batches");
            assert!(batch.checksum_matches(), "a damaged batch is served");
            seen.push(batch.header.base_offset);
        }
        assert!(read.next_offset > next);
        next = read.next_offset;
    }
    (seen, None)
}

/// Whatever is served was written there, in order without a hole; then comes the end, or an error that says what to do.
fn check(context: &str, start: i64, (seen, error): &(Vec<i64>, Option<ReadError>)) {
    let first = start / 10 * 10;
    let expected: Vec<i64> = (0..seen.len() as i64).map(|n| first + n * 10).collect();
    assert_eq!(seen, &expected, "{context}: from {start}");
    match error {
        Some(error) => assert!(
            matches!(error, ReadError::Corrupt { .. }) && error.to_string().contains("restore"),
            "{context}: {error}"
        ),
        None => assert_eq!(seen.len() as i64, BATCHES - first / 10, "{context}"),
    }
}

#[test]
fn no_flipped_bit_of_a_header_hides_or_moves_records() {
    let whole = filled();
    let (batches, second) = layout(&whole);
    let chosen = [0, 1, batches.len() / 2, batches.len() - 1];
    for index in chosen {
        let (position, base) = batches[index];
        // Base offset, length, magic.
        for bit in (0..96).step_by(5).chain(60..76).chain(128..136) {
            let disk = whole.kill(1);
            disk.flip_bit(&path(0, "log"), position + bit / 8, (bit % 8) as u8)
                .expect("flipped");
            let starts = [0, base, base + 3, (base - 10).max(0), second, second - 1];
            let (all, _) = live(2, &disk, move |env| async move {
                let (_engine, log) = open(&env).await;
                let mut all = Vec::new();
                for start in starts {
                    for max_bytes in [1, 3000, 1 << 20] {
                        all.push((start, consume(&log, start, max_bytes).await));
                    }
                }
                all
            });
            for (start, result) in &all {
                check(&format!("batch {index}, bit {bit}"), *start, result);
                if (..=base).contains(start) {
                    assert!(
                        result.1.is_some(),
                        "batch {index}, bit {bit}: unnoticed from {start}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_index_entry_that_lies_is_found_out_and_the_index_made_anew() {
    let whole = filled();
    let index = content(&whole, &path(0, "index"));
    assert!(index.len() >= 4 * 8, "several entries");
    for bit in 0..index.len() as u64 * 8 {
        let disk = whole.kill(1);
        disk.flip_bit(&path(0, "index"), bit / 8, (bit % 8) as u8)
            .expect("flipped");
        let ((), _) = live(3, &disk, move |env| async move {
            let (_engine, log) = open(&env).await;
            for start in (0..BATCHES * 10).step_by(35) {
                let result = consume(&log, start, 1).await;
                check(&format!("bit {bit}"), start, &result);
                assert!(result.1.is_none(), "bit {bit}: {:?}", result.1);
            }
        });
    }
}

#[test]
fn a_segment_that_is_gone_or_short_is_damage_not_an_end() {
    let whole = filled();
    let (_, second) = layout(&whole);
    let last = content(&whole, &path(second, "log"));
    for kept in [0, last.len() / 2] {
        let disk = whole.kill(1);
        disk.place(&path(second, "log"), &last[..kept])
            .expect("placed");
        let (result, _) = live(4, &disk, move |env| async move {
            let (_engine, log) = open(&env).await;
            consume(&log, 0, 1 << 20).await
        });
        check(&format!("{kept} bytes kept"), 0, &result);
        assert!(result.1.is_some(), "{kept} bytes kept: unnoticed");
    }
}
