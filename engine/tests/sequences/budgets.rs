//! Sequences in which somebody waits for memory, for journal space or for the disk: it comes, or there is an answer that says why not, within virtual time.

use std::time::Duration;

use ringlog_engine::config::LogConfig;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, TopicPartition};

use crate::support::{
    batch, contents, create_in, id, live_within, open, put, rules, two_directories,
};

#[test]
fn a_log_made_after_the_journal_failed_refuses() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
fn one_chunk_per_log_does_not_wedge_the_memory_budget() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = two_directories();
        config.tail_cache_bytes = 256 << 10;
        config.write_behind_age = Duration::from_secs(1000);
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        for number in 1..=60u8 {
            let log = create_in(&engine, &format!("t{number}"), number, LogConfig::default()).await;
            put(&log, batch(7_000, number)).await;
        }
    });
    assert!(
        done.is_some(),
        "everything is written behind, nothing is let go, the append hangs"
    );
}

#[test]
fn more_idle_logs_than_the_tail_cache_has_blocks() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = two_directories();
        config.tail_cache_bytes = 256 << 10;
        let engine = open(&env, config).await;
        for number in 1..=100u8 {
            let log = create_in(&engine, &format!("t{number}"), number, LogConfig::default()).await;
            put(&log, batch(100, number)).await;
        }
    });
    assert!(
        done.is_some(),
        "idle logs hold all the memory there is: appends hang"
    );
}

#[test]
fn a_batch_larger_than_the_tail_cache_is_refused_or_taken() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let (outcome, _) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
            let mut config = two_directories();
            config.tail_cache_bytes = 1 << 20;
            let engine = open(&env, config).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
fn a_full_disk_is_survived_without_a_restart() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 600, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(
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
fn a_journal_that_fills_up_does_not_stall_for_seconds() {
    let (worst, _) = live_within(&SimDisk::new(1), 1, 600, |env| async move {
        let mut config = two_directories();
        config.journal_bytes_max = 384 << 10;
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
fn a_slow_journal_does_not_spin_the_shard() {
    let (done, answered) = (std::sync::mpsc::channel::<()>(), Duration::from_secs(20));
    let (sender, receiver) = done;
    std::thread::spawn(move || {
        let (outcome, _) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
            let mut config = two_directories();
            config.write_behind_age = Duration::from_millis(1);
            let engine = open(&env, config).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
fn an_offline_log_does_not_starve_the_shard_of_journal() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 120, |env| async move {
        let engine = open(&env, two_directories()).await;
        let bad = create_in(&engine, "bad", 1, LogConfig::default()).await;
        let good = create_in(&engine, "good", 2, LogConfig::default()).await;
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
