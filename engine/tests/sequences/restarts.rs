//! Sequences over several starts, with other settings, another number of shards or another order of directories, or killed in between: nothing that was acknowledged is gone without a word.

use std::path::PathBuf;
use std::time::Duration;

use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories, shard_of};
use ringlog_engine::environment::Environment;
use ringlog_engine::sim::{Executor, StopAt};

use crate::support::{
    NOW_MS, batch, batch_at, contents, create_in, id, live_within, open, put, two_directories,
};

#[test]
fn two_changes_of_the_shard_count_lose_nothing() {
    let sharded = |shard: u32, shards: u32| EngineConfig {
        shard,
        shards,
        ..two_directories()
    };
    // A topic id per shard of two that lives in another shard of three.
    let mut disk = SimDisk::new(3);
    for (life, shards) in [2u32, 3, 2].into_iter().enumerate() {
        let (done, after) = live_within(&disk, 10 + life as u64, 300, move |env| async move {
            prepare_directories(&env, &sharded(0, shards))
                .await
                .expect("prepared");
            let mut engines = Vec::new();
            for shard in 0..shards {
                engines.push(
                    Engine::open(env.clone(), sharded(shard, shards))
                        .await
                        .expect("opens")
                        .0,
                );
            }
            for number in 1..=12u8 {
                let engine = &engines[shard_of(&id(number), 0, shards) as usize];
                let log =
                    create_in(engine, &format!("t{number}"), number, LogConfig::default()).await;
                let expected: Vec<(i64, u8)> = (0..life as i64 * 3)
                    .map(|offset| (offset, (offset / 3) as u8))
                    .collect();
                assert_eq!(
                    contents(&log).await,
                    expected,
                    "log {number} after {life} changes"
                );
                for _ in 0..3 {
                    put(&log, batch(300, life as u8)).await;
                }
            }
            for engine in engines {
                engine.shutdown_clean().await.expect("a clean stop");
            }
        });
        done.expect("no hang");
        disk = after.crash(5);
    }
}

#[test]
fn a_journal_is_not_thrown_away_while_a_log_is_offline() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = two_directories();
        config.write_behind_age = Duration::from_secs(100);
        let engine = open(&env, config).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        for fill in 0..5 {
            put(&log, batch(300, fill)).await;
        }
    });
    let disk = disk.crash(2);
    let two = |shard| EngineConfig {
        shard,
        shards: 2,
        ..two_directories()
    };
    let (_, disk) = live_within(&disk, 2, 60, |env| async move {
        env.disk().inject(Fault::always(
            FaultKind::InputOutput,
            Operation::Write,
            "one-0/",
        ));
        // Whether this succeeds or says why not: the records must still be somewhere.
        let _ = prepare_directories(&env, &two(0)).await;
    });
    let disk = disk.crash(3);
    disk.clear_faults();
    let (found, _) = live_within(&disk, 3, 60, |env| async move {
        env.disk().clear_faults();
        prepare_directories(&env, &two(0)).await.expect("prepared");
        let engine = Engine::open(env.clone(), two(shard_of(&id(1), 0, 2)))
            .await
            .expect("opens")
            .0;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        contents(&log).await.len()
    });
    assert_eq!(
        found,
        Some(5),
        "acknowledged records were in the journal that was removed"
    );
}

#[test]
fn replay_follows_the_segments_of_the_journal_not_todays_settings() {
    const DAY_MS: i64 = 86_400_000;
    let settings = || LogConfig {
        segment_ms: i64::MAX,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, move |env| async move {
        let mut config = two_directories();
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create_in(&engine, "one", 1, settings()).await;
        for fill in 0..10u8 {
            put(
                &log,
                batch_at(
                    NOW_MS - 1000 * DAY_MS + i64::from(fill) * 8 * DAY_MS,
                    20_000,
                    fill,
                    None,
                ),
            )
            .await;
        }
    });
    let (found, _) = live_within(&disk.crash(2), 2, 60, move |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, settings()).await;
        assert!(log.failure().is_none(), "offline: {:?}", log.failure());
        contents(&log).await
    });
    assert_eq!(
        found.expect("no hang"),
        (0..10)
            .map(|fill| (i64::from(fill), fill))
            .collect::<Vec<_>>()
    );
}

#[test]
fn the_order_of_log_directories_may_change_after_a_crash() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 0)).await;
        env.sleep(Duration::from_secs(2)).await;
        for fill in 1..5 {
            put(&log, batch(300, fill)).await;
        }
    });
    let (found, _) = live_within(&disk.crash(2), 2, 60, |env| async move {
        let mut config = two_directories();
        config.log_dirs.reverse();
        if prepare_directories(&env, &config).await.is_err() {
            return 5;
        }
        let Ok((engine, _)) = Engine::open(env.clone(), config).await else {
            return 5;
        };
        let Some(log) = engine.log(&id(1), 0) else {
            return -1;
        };
        if log.failure().is_some() {
            5
        } else {
            contents(&log).await.len() as i64
        }
    });
    assert_eq!(
        found,
        Some(5),
        "the journal was not found, and the log came back shorter without a word"
    );
}

#[test]
fn what_a_killed_start_left_unsynced_is_synced_before_anything_depends_on_it() {
    for operations in 1..80u64 {
        let disk = SimDisk::new(operations);
        let executor = Executor::with_disk(operations, disk);
        let stop = StopAt {
            disk_operations: Some(operations),
            ..StopAt::default()
        };
        let _ = executor.run_until(stop, |env| async move {
            let engine = open(&env, two_directories()).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 9)).await;
        });
        let disk = executor.disk().kill(operations);
        let (acknowledged, disk) = live_within(&disk, 2, 60, |env| async move {
            let mut config = two_directories();
            config.checkpoint_interval = Duration::from_secs(1000);
            let engine = open(&env, config).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 9)).await;
            log.log_end_offset()
        });
        let acknowledged = acknowledged.expect("no hang");
        for seed in 0..6 {
            let (found, _) = live_within(&disk.crash(seed), 3, 60, |env| async move {
                prepare_directories(&env, &two_directories())
                    .await
                    .map_err(|error| error.to_string())?;
                let (engine, _) = Engine::open(env.clone(), two_directories())
                    .await
                    .map_err(|error| error.to_string())?;
                let log = create_in(&engine, "one", 1, LogConfig::default()).await;
                Ok::<_, String>(contents(&log).await.len() as i64)
            });
            assert_eq!(
                found,
                Some(Ok(acknowledged)),
                "killed after {operations} operations, then power loss {seed}"
            );
        }
    }
}

#[test]
fn zeros_before_the_recovery_point_are_damage() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        for fill in 0..10 {
            put(&log, batch(3000, fill)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
        let other = create_in(&engine, "other", 2, LogConfig::default()).await;
        for _ in 0..60 {
            put(&other, batch(20_000, 3)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    let disk = disk.crash(2);
    let path = PathBuf::from("/data/a/one-0/00000000000000000000.log");
    let mut content = disk
        .files()
        .into_iter()
        .find(|(file, _)| path.ends_with(file))
        .expect("its segment")
        .1;
    let end = content.len();
    content[end / 4096 * 4096 - 8192..].fill(0);
    disk.place(&path, &content).expect("placed");
    let (found, _) = live_within(&disk, 3, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = engine.log(&id(1), 0).expect("it is there");
        if log.failure().is_some() {
            10
        } else {
            log.log_end_offset()
        }
    });
    assert_eq!(
        found,
        Some(10),
        "acknowledged records were cut away without a word"
    );
}

#[test]
fn what_was_said_of_a_deleted_log_does_not_come_back_with_another_number_of_shards() {
    let sharded = |shard: u32, shards: u32| EngineConfig {
        shard,
        shards,
        ..two_directories()
    };
    let mut disk = SimDisk::new(4);
    for (life, shards) in [2u32, 1, 2].into_iter().enumerate() {
        let (done, after) = live_within(&disk, 20 + life as u64, 300, move |env| async move {
            let prepared = prepare_directories(&env, &sharded(0, shards)).await;
            prepared.expect("prepared");
            let mut engines = Vec::new();
            for shard in 0..shards {
                engines.push(open(&env, sharded(shard, shards)).await);
            }
            let log_of = async |number: u8| {
                let engine = &engines[shard_of(&id(number), 0, shards) as usize];
                let log = create_in(engine, "t", number, LogConfig::default()).await;
                assert_eq!(log.failure(), None);
                log
            };
            match life {
                0 => {
                    let log = log_of(1).await;
                    for _ in 0..9 {
                        put(&log, batch(300, 1)).await;
                    }
                    log.delete_records_before(8).await.expect("deleted");
                    env.sleep(Duration::from_secs(1)).await;
                }
                1 => {
                    engines[0].delete_log(&id(1), 0).await.expect("deleted");
                    let log = log_of(2).await;
                    for fill in 0..3 {
                        put(&log, batch(300, fill)).await;
                    }
                    env.sleep(Duration::from_secs(1)).await;
                }
                _ => assert_eq!(contents(&log_of(2).await).await, [(0, 0), (1, 1), (2, 2)]),
            }
            for engine in engines {
                engine.shutdown_clean().await.expect("a clean stop");
            }
        });
        done.expect("no hang");
        disk = after.crash(life as u64);
    }
}
