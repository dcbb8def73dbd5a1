//! Sequences in which a log or some of its segments leave: what is to go goes, what is to be kept stays, and the next log of the name is not harmed.

use std::time::Duration;

use ringlog_engine::config::LogConfig;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::TopicPartition;
use ringlog_engine::sim::{Executor, StopAt};

use crate::support::{batch, contents, create_in, id, live_within, open, put, two_directories};

#[test]
fn a_partition_that_comes_back_under_its_id_keeps_its_new_records() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 1)).await;
        engine.set_aside(&id(1), 0).await.expect("set aside");
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        put(&log, batch(300, 2)).await;
    });
    let (found, _) = live_within(&disk.crash(2), 2, 60, |env| async move {
        prepare_directories(&env, &two_directories())
            .await
            .expect("prepared");
        let (engine, _) = Engine::open(env.clone(), two_directories())
            .await
            .map_err(|error| error.to_string())?;
        let log = create_in(&engine, "one", 1, LogConfig::default()).await;
        Ok::<_, String>(contents(&log).await)
    });
    assert_eq!(found, Some(Ok(vec![(0, 2)])));
}

#[test]
fn a_topic_with_the_longest_name_can_be_deleted() {
    let (done, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
        let log = create_in(&engine, &"n".repeat(249), 1, LogConfig::default()).await;
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
fn deleting_and_making_a_log_of_the_same_name_at_once() {
    for delay in 0..30u64 {
        let (_, disk) = live_within(&SimDisk::new(delay), delay, 60, move |env| async move {
            let engine = open(&env, two_directories()).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
                let log = create_in(&engine, "one", 2, LogConfig::default()).await;
                put(&log, batch(300, 2)).await;
            }
        });
        let (found, _) = live_within(&disk.crash(2), 2, 60, |env| async move {
            prepare_directories(&env, &two_directories())
                .await
                .expect("prepared");
            let (engine, _) = Engine::open(env.clone(), two_directories())
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
fn setting_aside_never_deletes() {
    for operations in 0..40u64 {
        let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
            let engine = open(&env, two_directories()).await;
            let log = create_in(&engine, "one", 1, LogConfig::default()).await;
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
                let engine = open(&env, two_directories()).await;
                let topic = id(1);
                let aside = engine.set_aside(&topic, 0);
                let aside = std::pin::pin!(aside);
                let tick = env.sleep(Duration::from_micros(operations * 100));
                futures_util::future::select(aside, std::pin::pin!(tick)).await;
                world.stop();
                env.sleep(Duration::from_secs(1)).await;
            },
        );
        let (_, disk) = live_within(
            &executor.disk().crash(operations),
            3,
            60,
            |env| async move {
                let _ = open(&env, two_directories()).await;
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
fn segments_that_were_to_be_removed_at_a_crash_are_removed_later() {
    let (_, disk) = live_within(&SimDisk::new(1), 1, 60, |env| async move {
        let mut config = two_directories();
        config.file_delete_delay = Duration::from_secs(60);
        let engine = open(&env, config).await;
        let log = create_in(
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
    let (_, disk) = live_within(&disk.kill(2), 2, 60, |env| async move {
        let engine = open(&env, two_directories()).await;
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
