//! `segment.index.bytes` may be lowered while segments are there whose indexes are larger than that. When such an index has to be made anew, it is made with fewer
//! entries, and finds what the larger one found.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog_engine::config::LogConfig;
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::environment::Environment;

use crate::support::{NOW_MS, batch_at, config, contents, create_in, live, open_whole, put};

const BATCHES: i64 = 120;

fn with_index_bytes(bytes: u64) -> LogConfig {
    LogConfig {
        index_interval_bytes: 0,
        segment_bytes: 16 << 10,
        segment_index_bytes: bytes,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn index_bytes(disk: &SimDisk) -> Vec<usize> {
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "timeindex"))
        .map(|(_, content)| content.len())
        .collect()
}

/// The size of each full segment, and the position of the last batch that its offset index knows.
fn last_indexed_positions(disk: &SimDisk) -> Vec<(u64, u64)> {
    let files = disk.files();
    let content = |path: PathBuf| files.iter().find(|(other, _)| *other == path);
    let mut found = Vec::new();
    for (path, segment) in &files {
        let is_log = path.extension().is_some_and(|kind| kind == "log");
        if is_log && segment.len() > 12 << 10 {
            let (_, index) = content(path.with_extension("index")).expect("its index");
            let position = index.last_chunk::<4>().copied().unwrap_or_default();
            found.push((segment.len() as u64, u32::from_be_bytes(position).into()));
        }
    }
    found
}

#[test]
fn an_index_is_made_anew_in_less_room() {
    let (_, whole) = live(&SimDisk::new(1), 1, |env| async move {
        let engine = open_whole(&env, config()).await;
        let log = create_in(&engine, "t1", 1, with_index_bytes(10 << 20)).await;
        for number in 0..BATCHES {
            put(&log, batch_at(NOW_MS + number, 400, 1, None)).await;
        }
        env.sleep(Duration::from_secs(1)).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    let before = index_bytes(&whole);
    assert!(before.len() > 2 && before[0] > 200, "{before:?}");
    for bytes in [0, 24, 36, 100, 200] {
        let (_, disk) = live(&whole.kill(1), 2, move |env| async move {
            let engine = open_whole(&env, config()).await;
            let log = create_in(&engine, "t1", 1, with_index_bytes(bytes)).await;
            let directory = Path::new("/data/t1-0");
            for entry in env.disk().list(directory).await.expect("listed") {
                if entry.name.ends_with("index") {
                    let path = directory.join(&entry.name);
                    env.disk().remove_file(&path).await.expect("removed");
                }
            }
            assert_eq!(contents(&log).await.len() as i64, BATCHES);
            for number in 0..BATCHES {
                let found = log.offset_for_timestamp(NOW_MS + number).await;
                let found = found.expect("readable").map(|found| found.offset);
                assert_eq!(found, Some(number), "{bytes} bytes");
            }
            put(&log, batch_at(NOW_MS + BATCHES, 400, 1, None)).await;
            assert_eq!(log.failure(), None);
            engine.shutdown_clean().await.expect("stopped");
        });
        for len in index_bytes(&disk) {
            let limit = bytes.max(24) as usize;
            assert!(0 < len && len <= limit, "{bytes} bytes: {len}");
        }
        if bytes >= 100 {
            for (size, last) in last_indexed_positions(&disk) {
                let near = last > size * 3 / 4;
                assert!(near, "{bytes} bytes: nothing after {last} of {size}");
            }
        }
        live(&disk.crash(1), 3, move |env| async move {
            let engine = open_whole(&env, config()).await;
            let log = create_in(&engine, "t1", 1, with_index_bytes(bytes)).await;
            for number in 0..=BATCHES {
                let found = log.offset_for_timestamp(NOW_MS + number).await;
                let found = found.expect("readable").map(|found| found.offset);
                assert_eq!(found, Some(number), "{bytes} bytes, after a restart");
            }
            let newest = log.max_timestamp_offset().await.expect("readable");
            assert_eq!(newest.map(|newest| newest.offset), Some(BATCHES));
        });
    }
}
