//! What a pass may take of what others need too: bytes a second, time at a stretch, memory for keys; and a directory that is full keeps nobody else waiting.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;

use ringlog_engine::batch::Compression;
use ringlog_engine::config::{CleanerMemory, EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{TopicId, TopicPartition};

use crate::support::*;

#[test]
fn what_is_only_copied_counts_against_the_limit() {
    live(&SimDisk::new(20), |env| async move {
        let (engine, log) = open(&env, slow()).await;
        for number in 0..200 {
            let key = format!("key-{number}");
            append(&log, record(&key, Some(&[1; 300])))
                .await
                .expect("appended");
        }
        settle(&env).await;
        // All of it stays, and is copied into larger segments.
        log.set_config(LogConfig {
            segment_bytes: 40 << 10,
            ..log_config()
        });
        let (size, began) = (log.size_bytes(), env.now());
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!(counters.passes, 1);
        assert_eq!(counters.kept_bytes, counters.replaced_bytes);
        let seconds = (env.now() - began) / 1_000_000;
        // Read twice, and written.
        let expected = (2 * size + counters.kept_bytes) / 20_000;
        assert!(seconds.abs_diff(expected) <= 2, "{seconds} s, {expected} s");
    });
}

#[test]
fn a_batch_that_grows_large_leaves_turns_to_others() {
    const VALUE_BYTES: usize = 3 << 20;
    const BATCHES: usize = 10;
    live(&SimDisk::new(21), |env| async move {
        let (engine, log) = open(&env, config()).await;
        let value = vec![7; VALUE_BYTES];
        for _ in 0..BATCHES {
            let large = record("replaced", Some(&value)).record(NOW, Some(b"stays"), Some(&value));
            append(&log, large.compression(Compression::Zstd))
                .await
                .expect("appended");
        }
        append(&log, record("replaced", Some(b"small")))
            .await
            .expect("appended");
        fill(&env, &log, 60).await;
        assert!(log.size_bytes() < 200 << 10, "it is small on disk");
        let polls = Cell::new(0);
        let mut pass = pin!(engine.clean_now(NOW));
        poll_fn(|context| {
            polls.set(polls.get() + 1);
            pass.as_mut().poll(context)
        })
        .await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        // Unpacked twice: at least one turn in 256 KiB. That is far more often than files are waited for.
        let turns = BATCHES * 2 * 2 * VALUE_BYTES / (256 << 10);
        assert!(polls.get() > turns, "{} polls, {turns} turns", polls.get());
        let found = records(&log).await;
        let large: Vec<_> = found
            .iter()
            .filter(|(_, key, _)| !key.starts_with("key-"))
            .map(|(offset, key, value)| (*offset, key.as_str(), value.as_ref().map(Vec::len)))
            .collect();
        let last = 2 * BATCHES as i64;
        let stays = (last - 1, "stays", Some(VALUE_BYTES));
        assert_eq!(large, [stays, (last, "replaced", Some(5))]);
    });
}

#[test]
fn a_pass_alone_has_more_than_its_shards_share_of_memory() {
    live(&SimDisk::new(22), |env| async move {
        let config = EngineConfig {
            // A share of 125 bytes, in which five keys fit.
            cleaner_memory: CleanerMemory::new(16_000, 64),
            ..config()
        };
        let (engine, log) = open(&env, config).await;
        for number in 0..500 {
            let key = format!("key-{}", number % 250);
            append(&log, record(&key, Some(&[1; 300])))
                .await
                .expect("appended");
        }
        settle(&env).await;
        engine.clean_now(NOW).await;
        let passes = engine.metrics().cleaner.passes;
        assert!((1..=2).contains(&passes), "{passes} passes");
    });
}

#[test]
fn a_full_directory_keeps_no_other_waiting() {
    live(&SimDisk::new(23), |env| async move {
        let config = EngineConfig {
            log_dirs: vec![PathBuf::from("/data"), PathBuf::from("/full")],
            ..config()
        };
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
        let mut logs = Vec::new();
        // All as dirty: the first comes first.
        for (number, directory) in [(1, 1), (2, 1), (3, 0)] {
            let name = TopicPartition::new(format!("compacted-{number}"), 0);
            let id = TopicId([number; 16]);
            let made = engine.create_log(name, id, log_config(), Some(directory));
            logs.push(made.await.expect("made"));
        }
        for log in &logs {
            fill(&env, log, 100).await;
        }
        let fault = Fault::always(FaultKind::OutOfSpace, Operation::Resize, ".log.cleaned");
        env.disk().inject(Fault {
            times: Some(1),
            ..fault
        });
        engine.clean_now(NOW).await;
        let sizes: Vec<bool> = logs.iter().map(|log| log.size_bytes() < 30_000).collect();
        assert_eq!(sizes, [false, false, true]);
        assert_eq!(engine.metrics().cleaner.passes, 1);
        // The next round finds space.
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 3);
    });
}
