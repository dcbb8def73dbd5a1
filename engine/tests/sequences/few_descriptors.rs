//! A process that can open no more files: what is written behind and what rolls waits for descriptors, as on a full disk it waits for space. No log goes offline, what is there is served,
//! and everything goes on by itself once files can be opened again.

use std::time::Duration;

use futures_util::future::join_all;
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::Engine;
use ringlog_engine::environment::Environment;
use ringlog_engine::log::AppendError;
use ringlog_engine::sim::SimEnvironment;

use crate::support::{
    SimLog, batch, config, contents, create, create_in, live, open_whole, put, rules,
};

/// More logs than files may be open, so that most of them have none.
const LOGS: u8 = 40;

fn few_files() -> EngineConfig {
    EngineConfig {
        open_files_max: 16,
        // Enough that no other file of it is needed while none can be made.
        journal_first_file_bytes: 1 << 20,
        journal_bytes_max: 4 << 20,
        write_behind_bytes: 16 << 10,
        write_behind_age: Duration::from_millis(100),
        checkpoint_interval: Duration::from_millis(300),
        ..config()
    }
}

fn exhaust(env: &SimEnvironment) {
    env.disk()
        .inject(Fault::always(FaultKind::NoDescriptor, Operation::Open, ""));
}

fn all_online(engine: &Engine<SimEnvironment>) {
    for log in engine.logs() {
        assert_eq!(log.failure(), None);
    }
}

/// A record to each at once, so that they share the journal's entries.
async fn fill_all(logs: &[SimLog], fill: u8) {
    join_all(logs.iter().map(|log| put(log, batch(1500, fill)))).await;
}

#[test]
fn write_behind_without_descriptors_is_tried_again() {
    let (_, disk) = live(&SimDisk::new(1), 1, |env| async move {
        let engine = open_whole(&env, few_files()).await;
        let mut logs = Vec::new();
        for number in 1..=LOGS {
            logs.push(create(&engine, number).await);
        }
        fill_all(&logs, 1).await;
        exhaust(&env);
        // Space is reserved: none of these needs a file.
        fill_all(&logs, 2).await;
        env.sleep(Duration::from_secs(5)).await;
        all_online(&engine);
        for log in &logs {
            assert_eq!(contents(log).await, [(0, 1), (1, 2)], "served from memory");
        }
        fill_all(&logs, 3).await;
        env.disk().clear_faults();
        env.sleep(Duration::from_secs(20)).await;
        all_online(&engine);
        // So much that nothing of what went before is left in the journal.
        for fill in 0..100 {
            put(&logs[0], batch(10_000, fill)).await;
        }
        engine.shutdown_clean().await.expect("stopped");
    });
    live(&disk.crash(1), 2, |env| async move {
        let engine = open_whole(&env, few_files()).await;
        for number in 2..=LOGS {
            let log = create(&engine, number).await;
            assert_eq!(contents(&log).await, [(0, 1), (1, 2), (2, 3)]);
        }
    });
}

#[test]
fn a_segment_that_cannot_be_made_refuses_and_is_made_later() {
    live(&SimDisk::new(2), 2, |env| async move {
        let engine = open_whole(&env, few_files()).await;
        let config = LogConfig {
            segment_bytes: 32 << 10,
            ..LogConfig::default()
        };
        let log = create_in(&engine, "t1", 1, config).await;
        put(&log, batch(20_000, 1)).await;
        exhaust(&env);
        for _ in 0..3 {
            let refused = log.append(batch(20_000, 2), &rules(), 1).await;
            assert!(
                matches!(
                    refused,
                    Err(AppendError::Log(_) | AppendError::StorageFull(_))
                ),
                "{refused:?}"
            );
            env.sleep(Duration::from_secs(1)).await;
            all_online(&engine);
        }
        env.disk().clear_faults();
        put(&log, batch(20_000, 3)).await;
        assert_eq!(contents(&log).await, [(0, 1), (1, 3)]);
    });
}

#[test]
fn who_waits_for_memory_gets_it_once_files_can_be_opened() {
    live(&SimDisk::new(3), 3, |env| async move {
        let engine = open_whole(
            &env,
            EngineConfig {
                tail_cache_bytes: 512 << 10,
                journal_first_file_bytes: 8 << 20,
                journal_bytes_max: 16 << 20,
                ..few_files()
            },
        )
        .await;
        let mut logs = Vec::new();
        for number in 1..=LOGS {
            logs.push(create(&engine, number).await);
        }
        fill_all(&logs, 1).await;
        exhaust(&env);
        let append_much = async {
            // Refused where a file is needed, waiting where memory is.
            for round in 0..10 {
                for log in &logs {
                    if let Ok(appended) = log.append(batch(4000, round), &rules(), 1).await {
                        log.flushed(appended.last_offset + 1)
                            .await
                            .expect("flushed");
                    }
                }
            }
        };
        let come_back = async {
            env.sleep(Duration::from_secs(10)).await;
            all_online(&engine);
            env.disk().clear_faults();
        };
        futures_util::join!(append_much, come_back);
        assert!(env.now() > 10_000_000, "nobody waited");
        all_online(&engine);
        env.sleep(Duration::from_secs(5)).await;
        fill_all(&logs, 9).await;
    });
}

#[test]
fn a_truncation_waits_for_descriptors() {
    let (_, disk) = live(&SimDisk::new(4), 4, |env| async move {
        let engine = open_whole(&env, few_files()).await;
        let config = LogConfig {
            segment_bytes: 32 << 10,
            ..LogConfig::default()
        };
        let log = create_in(&engine, "t1", 1, config).await;
        for fill in 0..8 {
            put(&log, batch(20_000, fill)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
        exhaust(&env);
        let come_back = async {
            env.sleep(Duration::from_secs(10)).await;
            all_online(&engine);
            env.disk().clear_faults();
        };
        let (end, ()) = futures_util::join!(log.truncate_to(3), come_back);
        assert_eq!(end.expect("truncated"), 3);
        assert!(env.now() > 10_000_000, "it waited");
        all_online(&engine);
        put(&log, batch(20_000, 99)).await;
        assert_eq!(contents(&log).await, [(0, 0), (1, 1), (2, 2), (3, 99)]);
        engine.shutdown_clean().await.expect("stopped");
    });
    live(&disk, 5, |env| async move {
        let engine = open_whole(&env, few_files()).await;
        let log = create(&engine, 1).await;
        assert_eq!(contents(&log).await, [(0, 0), (1, 1), (2, 2), (3, 99)]);
    });
}
