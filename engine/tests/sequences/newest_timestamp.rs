//! Lookups by time: they see what consumers see, not what is on its way to the disk or before the log's start; and they do not go by a time index that is not true of
//! the batches it names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog_engine::config::LogConfig;
use ringlog_engine::disk::sim::{SimDisk, Timing};
use ringlog_engine::environment::Environment;

use crate::support::{NOW_MS, SimLog, append, batch_at, config, create_in, live, open_whole, put};

/// An index entry for every batch, and segments of a dozen.
fn indexed() -> LogConfig {
    LogConfig {
        index_interval_bytes: 0,
        segment_bytes: 8 << 10,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

async fn newest(log: &SimLog) -> Option<(i64, i64)> {
    let found = log.max_timestamp_offset().await.expect("readable");
    found.map(|found| (found.timestamp - NOW_MS, found.offset))
}

async fn at_time(log: &SimLog, timestamp: i64) -> Option<i64> {
    let found = log.offset_for_timestamp(NOW_MS + timestamp).await;
    found.expect("readable").map(|found| found.offset)
}

async fn put_at(log: &SimLog, timestamp: i64) {
    put(log, batch_at(NOW_MS + timestamp, 600, 1, None)).await;
}

#[test]
fn what_is_not_flushed_is_not_found() {
    live(&SimDisk::new(1), 1, |env| async move {
        let engine = open_whole(&env, config()).await;
        let log = create_in(&engine, "t1", 1, indexed()).await;
        assert_eq!(newest(&log).await, None);
        for timestamp in [3, 7, 5] {
            put_at(&log, timestamp).await;
        }
        env.disk().set_timing(Timing {
            write_micros: (50_000, 60_000),
            ..Timing::default()
        });
        // So many that some go to another segment.
        let mut end = 0;
        for timestamp in 100..120 {
            end = append(&log, batch_at(NOW_MS + timestamp, 600, 1, None)).await;
        }
        assert_eq!(log.high_watermark(), 3);
        assert_eq!(newest(&log).await, Some((7, 1)));
        assert_eq!(at_time(&log, 6).await, Some(1));
        for timestamp in [8, 100, 110] {
            assert_eq!(at_time(&log, timestamp).await, None);
        }
        assert_eq!(log.high_watermark(), 3, "nothing was flushed meanwhile");
        log.flushed(end).await.expect("flushed");
        assert_eq!(newest(&log).await, Some((119, 22)));
        assert_eq!(at_time(&log, 8).await, Some(3));
    });
}

#[test]
fn what_was_deleted_is_not_the_newest() {
    live(&SimDisk::new(2), 2, |env| async move {
        let engine = open_whole(&env, config()).await;
        let log = create_in(&engine, "t1", 1, indexed()).await;
        for timestamp in [1, 90, 2, 40, 3, 30, 50, 10] {
            put_at(&log, timestamp).await;
        }
        assert_eq!(newest(&log).await, Some((90, 1)));
        log.delete_records_before(2).await.expect("deleted");
        assert_eq!(newest(&log).await, Some((50, 6)));
        log.delete_records_before(7).await.expect("deleted");
        assert_eq!(newest(&log).await, Some((10, 7)));
        log.delete_records_before(8).await.expect("deleted");
        assert_eq!(newest(&log).await, None);
    });
}

/// Times that go up and down, differently in each segment.
fn times() -> Vec<i64> {
    (0..32).map(|i| i * 10 + (i * 37) % 50).collect()
}

fn expected(from: i64) -> Option<i64> {
    let found = times().iter().position(|timestamp| *timestamp >= from);
    found.map(|at| at as i64)
}

fn newest_expected() -> (i64, i64) {
    let times = times();
    let newest = *times.iter().max().expect("some");
    let first = times.iter().position(|timestamp| *timestamp == newest);
    (newest, first.expect("it is there") as i64)
}

fn time_indexes(disk: &SimDisk) -> Vec<(PathBuf, usize)> {
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "timeindex"))
        .map(|(path, content)| (Path::new("/").join(path), content.len()))
        .collect()
}

async fn compare(log: &SimLog, context: &str) {
    for from in (0..400).step_by(7) {
        assert_eq!(
            at_time(log, from).await,
            expected(from),
            "{context}: {from}"
        );
    }
    assert_eq!(newest(log).await, Some(newest_expected()), "{context}");
}

#[test]
fn a_damaged_time_index_is_not_believed() {
    let (_, disk) = live(&SimDisk::new(3), 3, |env| async move {
        let engine = open_whole(&env, config()).await;
        let log = create_in(&engine, "t1", 1, indexed()).await;
        for timestamp in times() {
            put_at(&log, timestamp).await;
        }
        compare(&log, "at first").await;
        env.sleep(Duration::from_secs(1)).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    let files = time_indexes(&disk);
    assert!(files.len() > 2, "several segments");
    for (path, len) in files {
        assert!(len > 0);
        for byte in 0..len {
            for bit in [0, byte as u8 % 7 + 1] {
                let disk = disk.kill(1);
                disk.flip_bit(&path, byte as u64, bit).expect("flipped");
                let context = format!("{}, byte {byte}, bit {bit}", path.display());
                live(&disk, 4, move |env| async move {
                    let engine = open_whole(&env, config()).await;
                    let log = create_in(&engine, "t1", 1, indexed()).await;
                    // The first question may be the one that goes wrong.
                    let newest = newest(&log).await;
                    assert_eq!(newest, Some(newest_expected()), "{context}");
                    compare(&log, &context).await;
                });
            }
        }
    }
}

#[test]
fn a_damaged_time_index_of_a_log_that_goes_on_is_not_believed() {
    let (_, disk) = live(&SimDisk::new(5), 5, |env| async move {
        let engine = open_whole(&env, config()).await;
        let log = create_in(&engine, "t1", 1, indexed()).await;
        for timestamp in [10, 20, 60, 30] {
            put_at(&log, timestamp).await;
        }
        engine.shutdown_clean().await.expect("stopped");
    });
    let (path, len) = time_indexes(&disk).remove(0);
    // The newest entry's time, which becomes older or newer.
    for bit in 0..6 {
        let disk = disk.kill(1);
        disk.flip_bit(&path, len as u64 - 5, bit).expect("flipped");
        live(&disk, 6, move |env| async move {
            let engine = open_whole(&env, config()).await;
            let log = create_in(&engine, "t1", 1, indexed()).await;
            put_at(&log, 55).await;
            assert_eq!(newest(&log).await, Some((60, 2)), "bit {bit}");
            assert_eq!(at_time(&log, 56).await, Some(2), "bit {bit}");
            assert_eq!(at_time(&log, 61).await, None, "bit {bit}");
        });
    }
}
