//! Sequences around a truncation: it cuts what it should, ends, stays finished over starts, and leaves the producers known.

use std::time::Duration;

use ringlog_engine::config::LogConfig;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::environment::Environment;
use ringlog_engine::log::LogError;
use ringlog_engine::sim::{Executor, StopAt};

use crate::support::{
    NOW_MS, batch, batch_at, contents, create_in, id, live_within, open, put, rules,
    two_directories,
};

#[test]
fn truncation_spares_a_batch_that_is_half_written_behind() {
    let (done, _) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = two_directories();
        config.tail_cache_bytes = 400 << 10;
        config.journal_bytes_max = 16 << 20;
        config.journal_first_file_bytes = 2 << 20;
        config.write_behind_bytes = 16 << 10;
        config.write_behind_age = Duration::from_secs(100);
        config.checkpoint_interval = Duration::from_secs(1000);
        let engine = open(&env, config).await;
        let log = create_in(
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
fn a_truncation_that_recovery_finished_stays_finished() {
    for operations in 0..40u64 {
        let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
            let engine = open(&env, two_directories()).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
                let engine = open(&env, two_directories()).await;
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
        let (expected, disk) = live_within(
            &executor.disk().crash(operations),
            3,
            60,
            |env| async move {
                let mut config = two_directories();
                config.checkpoint_interval = Duration::from_secs(1000);
                let engine = open(&env, config).await;
                let log = engine.log(&id(1), 0).expect("it is there");
                put(&log, batch(300, 100)).await;
                contents(&log).await
            },
        );
        // A start that comes to nothing, in between.
        let (_, disk) = live_within(&disk.crash(operations), 5, 60, |env| async move {
            let mut config = two_directories();
            config.checkpoint_interval = Duration::from_secs(1000);
            let _ = open(&env, config).await;
            env.sleep(Duration::from_millis(5)).await;
        });
        let (found, _) = live_within(&disk.crash(operations), 4, 60, |env| async move {
            let engine = open(&env, two_directories()).await;
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
        let (done, _) = live_within(&SimDisk::new(delay), delay, 300, move |env| async move {
            let mut config = two_directories();
            config.checkpoint_interval = Duration::from_secs(1000);
            let engine = open(&env, config).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
            let other = create_in(&engine, "other", 2, LogConfig::default()).await;
            put(&log, batch(300, 1)).await;
            put(&log, batch(300, 2)).await;
            let fill = async {
                for _ in 0..60 {
                    put(&other, batch(20_000, 3)).await;
                }
            };
            let cut = async {
                env.sleep(Duration::from_millis(delay)).await;
                // The deletion may come first.
                let cut = log.truncate_to(1).await;
                assert!(matches!(cut, Ok(1) | Err(LogError::Deleted(_))), "{cut:?}");
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
fn a_truncated_log_remembers_its_producers_after_a_crash() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        for sequence in 0..10 {
            put(&log, batch_at(NOW_MS, 200, sequence as u8, Some(sequence))).await;
        }
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(log.truncate_to(5).await.expect("truncated"), 5);
        env.sleep(Duration::from_secs(2)).await;
        // Something else moves the journal on.
        let other = create_in(&engine, "other", 2, LogConfig::default()).await;
        for _ in 0..60 {
            put(&other, batch(20_000, 3)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    let (done, _) = live_within(&disk.crash(2), 2, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
