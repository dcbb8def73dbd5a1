//! Attacks on the engine's promises that random histories meet too rarely: each test is one sequence of events on the simulated disk, with what must
//! hold after it. Deterministic; a run that does not end in its virtual time counts as a hang.

use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories, shard_of};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

const NOW_MS: i64 = 1_704_067_200_000;

type SimLog = Rc<Log<SimEnvironment>>;

fn config() -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data/a"), PathBuf::from("/data/b")]);
    config.journal_first_file_bytes = 64 << 10;
    config.journal_file_bytes = 128 << 10;
    config.journal_bytes_max = 512 << 10;
    config.journal_entry_bytes = 64 << 10;
    config.journal_backlog_bytes = 256 << 10;
    config.tail_cache_bytes = 8 << 20;
    config.write_behind_bytes = 32 << 10;
    config.write_behind_age = Duration::from_millis(50);
    config.checkpoint_interval = Duration::from_millis(100);
    config.file_delete_delay = Duration::from_millis(20);
    config
}

fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 16 << 20,
        now_ms: NOW_MS,
        ..ProduceRules::default()
    }
}

fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn batch_at(timestamp: i64, size: usize, fill: u8, producer: Option<i32>) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some(sequence) = producer {
        builder = builder.producer(77, 0, sequence);
    }
    Bytes::from(
        builder
            .record(timestamp, None, Some(&vec![fill; size]))
            .build()
            .expect("a batch"),
    )
}

fn batch(size: usize, fill: u8) -> Bytes {
    batch_at(NOW_MS, size, fill, None)
}

/// Runs one life, at most `seconds` of virtual time; `None` when it did not end by then.
fn live<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    seed: u64,
    seconds: u64,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (Option<T>, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let stop = StopAt {
        micros: Some(seconds * 1_000_000),
        ..StopAt::default()
    };
    let outcome = match executor.run_until(stop, life) {
        Outcome::Finished(result) => Some(result),
        Outcome::Stopped => None,
    };
    (outcome, executor.disk().clone())
}

async fn open(env: &SimEnvironment, config: EngineConfig) -> Engine<SimEnvironment> {
    prepare_directories(env, &config)
        .await
        .expect("the directories can be prepared");
    Engine::open(env.clone(), config)
        .await
        .expect("the engine opens")
        .0
}

async fn create(
    engine: &Engine<SimEnvironment>,
    name: &str,
    number: u8,
    config: LogConfig,
) -> SimLog {
    engine
        .create_log(TopicPartition::new(name, 0), id(number), config, Some(0))
        .await
        .expect("the log is made")
}

async fn put(log: &SimLog, batch: Bytes) -> i64 {
    let appended = log.append(batch, &rules(), 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
    appended.base_offset
}

/// The fill byte of each record, by offset.
async fn contents(log: &SimLog) -> Vec<(i64, u8)> {
    let mut found = Vec::new();
    let mut next = log.log_start_offset();
    loop {
        let read = log
            .read(next, 1 << 20, true, ReadLimit::HighWatermark)
            .await
            .expect("readable");
        if read.is_empty() {
            assert!(
                next >= log.high_watermark(),
                "nothing to read at {next} of {}",
                log.high_watermark()
            );
            return found;
        }
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a batch");
            assert!(batch.checksum_matches(), "damaged");
            let last = batch.bytes.len() - 2;
            found.push((batch.header.base_offset, batch.bytes[last]));
        }
        next = read.next_offset;
    }
}

#[test]
fn a_log_made_after_the_journal_failed_refuses() {
    let (done, _) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(100, 1)).await;
        env.disk().inject(Fault::always(
            FaultKind::InputOutput,
            Operation::Write,
            ".journal",
        ));
        let appended = log
            .append(batch(100, 2), &rules(), 1)
            .await
            .expect("in order");
        log.flushed(appended.last_offset + 1)
            .await
            .expect_err("the journal has failed");
        let Ok(late) = engine
            .create_log(
                TopicPartition::new("two", 0),
                id(2),
                LogConfig::default(),
                None,
            )
            .await
        else {
            return;
        };
        let Ok(appended) = late.append(batch(100, 3), &rules(), 1).await else {
            return;
        };
        late.flushed(appended.last_offset + 1)
            .await
            .expect_err("nothing can be acknowledged");
    });
    assert!(
        done.is_some(),
        "an append to a log made after the journal failed is never answered"
    );
}

#[test]
fn two_changes_of_the_shard_count_lose_nothing() {
    let sharded = |shard: u32, shards: u32| EngineConfig {
        shard,
        shards,
        ..config()
    };
    // A topic id per shard of two that lives in another shard of three.
    let mut disk = SimDisk::new(3);
    for (life, shards) in [2u32, 3, 2].into_iter().enumerate() {
        let (done, after) = live(&disk, 10 + life as u64, 300, move |env| async move {
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
                let log = create(engine, &format!("t{number}"), number, LogConfig::default()).await;
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
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = config();
        config.write_behind_age = Duration::from_secs(100);
        let engine = open(&env, config).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        for fill in 0..5 {
            put(&log, batch(300, fill)).await;
        }
    });
    let disk = disk.crash(2);
    let two = |shard| EngineConfig {
        shard,
        shards: 2,
        ..config()
    };
    let (_, disk) = live(&disk, 2, 60, |env| async move {
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
    let (found, _) = live(&disk, 3, 60, |env| async move {
        env.disk().clear_faults();
        prepare_directories(&env, &two(0)).await.expect("prepared");
        let engine = Engine::open(env.clone(), two(shard_of(&id(1), 0, 2)))
            .await
            .expect("opens")
            .0;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
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
    let (_, disk) = live(&SimDisk::new(1), 1, 60, move |env| async move {
        let mut config = config();
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create(&engine, "one", 1, settings()).await;
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
    let (found, _) = live(&disk.crash(2), 2, 60, move |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, settings()).await;
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
fn truncation_spares_a_batch_that_is_half_written_behind() {
    let (done, _) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = config();
        config.tail_cache_bytes = 400 << 10;
        config.journal_bytes_max = 16 << 20;
        config.journal_first_file_bytes = 2 << 20;
        config.write_behind_bytes = 16 << 10;
        config.write_behind_age = Duration::from_secs(100);
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create(
            &engine,
            "one",
            1,
            LogConfig {
                index_interval_bytes: 1 << 20,
                ..LogConfig::default()
            },
        )
        .await;
        put(&log, batch(1000, 1)).await;
        put(&log, batch(370_000, 2)).await;
        env.sleep(Duration::from_secs(2)).await;
        put(&log, batch(500, 3)).await;
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(
            log.truncate_to(2).await.expect("truncated"),
            2,
            "only the batch at offset 2 was to go"
        );
        assert_eq!(contents(&log).await, vec![(0, 1), (1, 2)]);
    });
    done.expect("no hang");
}

#[test]
fn one_chunk_per_log_does_not_wedge_the_memory_budget() {
    let (done, _) = live(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = config();
        config.tail_cache_bytes = 256 << 10;
        config.write_behind_age = Duration::from_secs(1000);
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        for number in 1..=60u8 {
            let log = create(&engine, &format!("t{number}"), number, LogConfig::default()).await;
            put(&log, batch(7_000, number)).await;
        }
    });
    assert!(
        done.is_some(),
        "everything is written behind, nothing is let go, the append hangs"
    );
}

#[test]
fn the_order_of_log_directories_may_change_after_a_crash() {
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 0)).await;
        env.sleep(Duration::from_secs(2)).await;
        for fill in 1..5 {
            put(&log, batch(300, fill)).await;
        }
    });
    let (found, _) = live(&disk.crash(2), 2, 60, |env| async move {
        let mut config = config();
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
            let engine = open(&env, config()).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 9)).await;
        });
        let disk = executor.disk().kill(operations);
        let (acknowledged, disk) = live(&disk, 2, 60, |env| async move {
            let mut config = config();
            config.checkpoint_interval = Duration::from_secs(1000);
            let engine = open(&env, config).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 9)).await;
            log.log_end_offset()
        });
        let acknowledged = acknowledged.expect("no hang");
        for seed in 0..6 {
            let (found, _) = live(&disk.crash(seed), 3, 60, |env| async move {
                prepare_directories(&env, &config())
                    .await
                    .map_err(|error| error.to_string())?;
                let (engine, _) = Engine::open(env.clone(), config())
                    .await
                    .map_err(|error| error.to_string())?;
                let log = create(&engine, "one", 1, LogConfig::default()).await;
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
fn a_partition_that_comes_back_under_its_id_keeps_its_new_records() {
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 1)).await;
        engine.set_aside(&id(1), 0).await.expect("set aside");
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 2)).await;
    });
    let (found, _) = live(&disk.crash(2), 2, 60, |env| async move {
        prepare_directories(&env, &config())
            .await
            .expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config())
            .await
            .map_err(|error| error.to_string())?;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        Ok::<_, String>(contents(&log).await)
    });
    assert_eq!(found, Some(Ok(vec![(0, 2)])));
}

#[test]
fn a_full_disk_is_survived_without_a_restart() {
    let (done, _) = live(&SimDisk::new(1), 1, 600, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(
            &engine,
            "one",
            1,
            LogConfig {
                segment_bytes: 256 << 10,
                ..LogConfig::default()
            },
        )
        .await;
        put(&log, batch(300, 1)).await;
        env.disk().set_capacity_bytes(1500 << 10);
        let mut acknowledged = 1;
        for _ in 0..200 {
            match log.append(batch(20_000, 2), &rules(), 1).await {
                Ok(appended) => {
                    log.flushed(appended.last_offset + 1)
                        .await
                        .expect("what was given an offset is flushed");
                    acknowledged += 1;
                }
                Err(AppendError::StorageFull(_)) => break,
                Err(error) => panic!("only a full disk was met: {error}"),
            }
        }
        env.sleep(Duration::from_secs(5)).await;
        assert!(
            log.failure().is_none(),
            "offline for want of space: {:?}",
            log.failure()
        );
        env.disk().set_capacity_bytes(1 << 40);
        put(&log, batch(300, 3)).await;
        assert_eq!(contents(&log).await.len(), acknowledged + 1);
    });
    assert!(done.is_some(), "it hangs");
}

#[test]
fn a_topic_with_the_longest_name_can_be_deleted() {
    let (done, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, &"n".repeat(249), 1, LogConfig::default()).await;
        put(&log, batch(300, 1)).await;
        engine
            .delete_log(&id(1), 0)
            .await
            .map_err(|error| error.to_string())?;
        env.sleep(Duration::from_secs(2)).await;
        Ok::<(), String>(())
    });
    assert_eq!(done, Some(Ok(())));
    assert!(
        !disk
            .files()
            .iter()
            .any(|(path, _)| path.to_string_lossy().contains("nnnn")),
        "its files are still there"
    );
}

#[test]
fn a_journal_that_fills_up_does_not_stall_for_seconds() {
    let (worst, _) = live(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = config();
        config.journal_bytes_max = 384 << 10;
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        let mut worst = 0;
        for _ in 0..300 {
            let before = env.now();
            put(&log, batch(20_000, 1)).await;
            worst = worst.max(env.now() - before);
        }
        worst
    });
    let worst = worst.expect("no hang");
    assert!(worst < 500_000, "an append took {worst} us");
}

#[test]
fn deleting_and_making_a_log_of_the_same_name_at_once() {
    for delay in 0..30u64 {
        let (_, disk) = live(&SimDisk::new(delay), delay, 60, move |env| async move {
            let engine = open(&env, config()).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 1)).await;
            let topic = id(1);
            let deleting = engine.delete_log(&topic, 0);
            let making = async {
                env.sleep(Duration::from_micros(delay * 50)).await;
                let made = engine
                    .create_log(
                        TopicPartition::new("one", 0),
                        id(2),
                        LogConfig::default(),
                        Some(0),
                    )
                    .await;
                if let Ok(log) = made {
                    put(&log, batch(300, 2)).await;
                    return true;
                }
                false
            };
            let (_, made) = futures_util::join!(deleting, making);
            if !made {
                let log = create(&engine, "one", 2, LogConfig::default()).await;
                put(&log, batch(300, 2)).await;
            }
        });
        let (found, _) = live(&disk.crash(2), 2, 60, |env| async move {
            prepare_directories(&env, &config())
                .await
                .expect("prepared");
            let (engine, _) = Engine::open(env.clone(), config())
                .await
                .map_err(|error| error.to_string())?;
            let log = engine.log(&id(2), 0).ok_or("the new log is gone")?;
            Ok::<_, String>(contents(&log).await)
        });
        assert_eq!(
            found,
            Some(Ok(vec![(0, 2)])),
            "made {} us after the deletion began",
            delay * 50
        );
    }
}

#[test]
fn a_truncation_that_recovery_finished_stays_finished() {
    for operations in 0..40u64 {
        let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
            let engine = open(&env, config()).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            for fill in 0..10 {
                put(&log, batch(300, fill)).await;
            }
            engine.shutdown_clean().await.expect("a clean stop");
        });
        let executor = Executor::with_disk(7, disk.crash(1));
        let world = executor.world().clone();
        let _ = executor.run_until(
            StopAt {
                micros: Some(60_000_000),
                ..StopAt::default()
            },
            move |env| async move {
                let engine = open(&env, config()).await;
                let log = engine.log(&id(1), 0).expect("it is there");
                let cutting = std::pin::pin!(log.truncate_to(5));
                futures_util::future::select(
                    cutting,
                    std::pin::pin!(env.sleep(Duration::from_micros(operations * 100))),
                )
                .await;
                world.stop();
                env.sleep(Duration::from_secs(1)).await;
            },
        );
        // Whatever the first start after it found, holds for the second one too, with what was appended in between.
        let (expected, disk) = live(
            &executor.disk().crash(operations),
            3,
            60,
            |env| async move {
                let mut config = config();
                config.checkpoint_interval = Duration::from_secs(1000);
                let engine = open(&env, config).await;
                let log = engine.log(&id(1), 0).expect("it is there");
                put(&log, batch(300, 100)).await;
                contents(&log).await
            },
        );
        // A start that comes to nothing, in between.
        let (_, disk) = live(&disk.crash(operations), 5, 60, |env| async move {
            let mut config = config();
            config.checkpoint_interval = Duration::from_secs(1000);
            let _ = open(&env, config).await;
            env.sleep(Duration::from_millis(5)).await;
        });
        let (found, _) = live(&disk.crash(operations), 4, 60, |env| async move {
            let engine = open(&env, config()).await;
            let log = engine.log(&id(1), 0).expect("it is there");
            assert!(log.failure().is_none(), "offline: {:?}", log.failure());
            contents(&log).await
        });
        assert_eq!(
            found, expected,
            "power lost {operations}00 us after the truncation began"
        );
    }
}

#[test]
fn a_truncation_while_the_journal_is_full_ends() {
    for delay in 0..20u64 {
        let (done, _) = live(&SimDisk::new(delay), delay, 300, move |env| async move {
            let mut config = config();
            config.checkpoint_interval = Duration::from_secs(1000);
            let engine = open(&env, config).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            let other = create(&engine, "other", 2, LogConfig::default()).await;
            put(&log, batch(300, 1)).await;
            put(&log, batch(300, 2)).await;
            let fill = async {
                for _ in 0..60 {
                    put(&other, batch(20_000, 3)).await;
                }
            };
            let cut = async {
                env.sleep(Duration::from_millis(delay)).await;
                log.truncate_to(1).await.expect("truncated");
            };
            let delete = async {
                env.sleep(Duration::from_millis(delay + 5)).await;
                engine.delete_log(&id(1), 0).await.expect("deleted");
            };
            futures_util::join!(fill, cut, delete);
        });
        assert!(
            done.is_some(),
            "it hangs when the truncation begins after {delay} ms"
        );
    }
}

#[test]
fn a_slow_journal_does_not_spin_the_shard() {
    let (done, answered) = (std::sync::mpsc::channel::<()>(), Duration::from_secs(20));
    let (sender, receiver) = done;
    std::thread::spawn(move || {
        let (outcome, _) = live(&SimDisk::new(1), 1, 60, |env| async move {
            let mut config = config();
            config.write_behind_age = Duration::from_millis(1);
            let engine = open(&env, config).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 1)).await;
            env.disk().set_timing(ringlog_engine::disk::sim::Timing {
                write_micros: (50_000, 90_000),
                ..Default::default()
            });
            for fill in 0..5 {
                put(&log, batch(300, fill)).await;
            }
        });
        if outcome.is_some() {
            let _ = sender.send(());
        }
    });
    receiver
        .recv_timeout(answered)
        .expect("a task spins while the journal is slow");
}

#[test]
fn zeros_before_the_recovery_point_are_damage() {
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        for fill in 0..10 {
            put(&log, batch(3000, fill)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
        let other = create(&engine, "other", 2, LogConfig::default()).await;
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
    let (found, _) = live(&disk, 3, 60, |env| async move {
        let engine = open(&env, config()).await;
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
fn an_offline_log_does_not_starve_the_shard_of_journal() {
    let (done, _) = live(&SimDisk::new(1), 1, 120, |env| async move {
        let engine = open(&env, config()).await;
        let bad = create(&engine, "bad", 1, LogConfig::default()).await;
        let good = create(&engine, "good", 2, LogConfig::default()).await;
        put(&bad, batch(100, 1)).await;
        env.disk().inject(Fault::always(
            FaultKind::InputOutput,
            Operation::Write,
            "bad-0/",
        ));
        put(&bad, batch(40_000, 2)).await;
        env.sleep(Duration::from_secs(1)).await;
        assert!(bad.failure().is_some(), "its disk refuses");
        for _ in 0..100 {
            put(&good, batch(20_000, 3)).await;
        }
    });
    assert!(
        done.is_some(),
        "appends to a healthy log hang because an offline one holds the journal"
    );
}

#[test]
fn a_truncated_log_remembers_its_producers_after_a_crash() {
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        for sequence in 0..10 {
            put(&log, batch_at(NOW_MS, 200, sequence as u8, Some(sequence))).await;
        }
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(log.truncate_to(5).await.expect("truncated"), 5);
        env.sleep(Duration::from_secs(2)).await;
        // Something else moves the journal on.
        let other = create(&engine, "other", 2, LogConfig::default()).await;
        for _ in 0..60 {
            put(&other, batch(20_000, 3)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    let (done, _) = live(&disk.crash(2), 2, 60, |env| async move {
        let engine = open(&env, config()).await;
        let log = create(&engine, "one", 1, LogConfig::default()).await;
        assert_eq!(log.log_end_offset(), 5);
        let again = log
            .append(batch_at(NOW_MS, 200, 4, Some(4)), &rules(), 1)
            .await
            .expect("a duplicate");
        assert!(
            again.duplicate,
            "a retry was stored twice: the producer was forgotten"
        );
        assert_eq!(again.base_offset, 4);
    });
    done.expect("no hang");
}

#[test]
fn more_idle_logs_than_the_tail_cache_has_blocks() {
    let (done, _) = live(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = config();
        config.tail_cache_bytes = 256 << 10;
        let engine = open(&env, config).await;
        for number in 1..=100u8 {
            let log = create(&engine, &format!("t{number}"), number, LogConfig::default()).await;
            put(&log, batch(100, number)).await;
        }
    });
    assert!(
        done.is_some(),
        "idle logs hold all the memory there is: appends hang"
    );
}

#[test]
fn setting_aside_never_deletes() {
    for operations in 0..40u64 {
        let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
            let engine = open(&env, config()).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            put(&log, batch(300, 9)).await;
            engine.shutdown_clean().await.expect("a clean stop");
        });
        let executor = Executor::with_disk(7, disk.crash(1));
        let world = executor.world().clone();
        let _ = executor.run_until(
            StopAt {
                micros: Some(60_000_000),
                ..StopAt::default()
            },
            move |env| async move {
                let engine = open(&env, config()).await;
                let topic = id(1);
                let aside = engine.set_aside(&topic, 0);
                let aside = std::pin::pin!(aside);
                let tick = env.sleep(Duration::from_micros(operations * 100));
                futures_util::future::select(aside, std::pin::pin!(tick)).await;
                world.stop();
                env.sleep(Duration::from_secs(1)).await;
            },
        );
        let (_, disk) = live(
            &executor.disk().crash(operations),
            3,
            60,
            |env| async move {
                let _ = open(&env, config()).await;
                env.sleep(Duration::from_secs(2)).await;
            },
        );
        let kept = disk.files().iter().any(|(path, content)| {
            path.to_string_lossy().contains("one-0")
                && path.extension().is_some_and(|kind| kind == "log")
                && content.len() > 300
        });
        assert!(
            kept,
            "set aside, power lost after {operations}00 us: the records are gone"
        );
    }
}

#[test]
fn a_batch_larger_than_the_tail_cache_is_refused_or_taken() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let (outcome, _) = live(&SimDisk::new(1), 1, 60, |env| async move {
            let mut config = config();
            config.tail_cache_bytes = 1 << 20;
            let engine = open(&env, config).await;
            let log = create(&engine, "one", 1, LogConfig::default()).await;
            if let Ok(appended) = log.append(batch(3 << 20, 1), &rules(), 1).await {
                log.flushed(appended.last_offset + 1)
                    .await
                    .expect("flushed");
            }
            put(&log, batch(300, 2)).await;
        });
        if outcome.is_some() {
            let _ = sender.send(());
        }
    });
    receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("the shard hangs or spins for ever");
}

#[test]
fn segments_that_were_to_be_removed_at_a_crash_are_removed_later() {
    let (_, disk) = live(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = config();
        config.file_delete_delay = Duration::from_secs(60);
        let engine = open(&env, config).await;
        let log = create(
            &engine,
            "one",
            1,
            LogConfig {
                segment_bytes: 32 << 10,
                ..LogConfig::default()
            },
        )
        .await;
        for fill in 0..10 {
            put(&log, batch(20_000, fill)).await;
        }
        env.sleep(Duration::from_secs(3)).await;
        log.delete_records_before(9).await.expect("deleted");
        env.sleep(Duration::from_secs(1)).await;
    });
    let (_, disk) = live(&disk.kill(2), 2, 60, |env| async move {
        let engine = open(&env, config()).await;
        env.sleep(Duration::from_secs(10)).await;
        engine.shutdown_clean().await.expect("a clean stop");
    });
    let left: Vec<_> = disk
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.to_string_lossy().ends_with(".deleted"))
        .collect();
    assert!(left.is_empty(), "removed segments stay for ever: {left:?}");
}
