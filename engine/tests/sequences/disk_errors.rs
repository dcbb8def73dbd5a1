//! What the engine does when a disk fails it: damage and errors are met with the partition or the shard offline and a message that says what to do, never with
//! records cut away; and what was acknowledged is there again once the disk works.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::Engine;
use ringlog_engine::environment::Environment;
use ringlog_engine::sim::SimEnvironment;

use crate::support::{batch, config, create, fills, live, open, open_found, put, rules};

fn soon_behind() -> EngineConfig {
    EngineConfig {
        journal_entry_bytes: 32 << 10,
        write_behind_bytes: 32 << 10,
        write_behind_age: Duration::from_millis(100),
        ..config()
    }
}

/// Runs a life to its end, after which the power goes.
fn until_power_loss<F: Future<Output = T> + 'static, T: 'static>(
    disk: &SimDisk,
    seed: u64,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let (result, disk) = live(disk, seed, life);
    (result, disk.crash(seed + 1000))
}

/// Twenty acknowledged batches, then the power goes; returns the disk.
fn twenty_batches() -> SimDisk {
    let (_, disk) = until_power_loss(&SimDisk::new(1), 1, |env| async move {
        let engine = open(&env, soon_behind()).await;
        let log = create(&engine, 1).await;
        for fill in 0..20 {
            put(&log, batch(3000, fill)).await;
        }
    });
    disk
}

fn journal_file(disk: &SimDisk) -> (PathBuf, Vec<u8>) {
    let mut files = disk.files().into_iter().filter(|(path, content)| {
        path.extension().is_some_and(|kind| kind == "journal")
            && content.iter().any(|byte| *byte != 0)
    });
    let (path, content) = files.next().expect("a journal file");
    (Path::new("/").join(path), content)
}

#[test]
fn damage_inside_the_journal_is_never_a_silent_end() {
    let whole = twenty_batches();
    let (_, content) = journal_file(&whole);
    let used = content.iter().rposition(|byte| *byte != 0).expect("used");
    // Not in the last entries: those might have been in flight.
    for at in (4096..used - 6 * 4096).step_by(1777) {
        let (path, content) = journal_file(&whole);
        if content[at] == 0 {
            // Padding between entries and unused space may rot unseen.
            continue;
        }
        let disk = whole.kill(1);
        disk.flip_bit(&path, at as u64, 3).expect("flipped");
        let mut disk = disk;
        for life in 0..2 {
            let (recovered, after) = until_power_loss(&disk, 10 + life, |env| async move {
                let (engine, recovered) = open_found(&env, soon_behind()).await;
                let log = create(&engine, 1).await;
                assert!(
                    log.append(batch(10, 1), &rules(), 1).await.is_err(),
                    "an offline log takes nothing"
                );
                engine.shutdown_clean().await.expect("stopped");
                recovered
            });
            let reason = recovered[0].offline.clone().unwrap_or_default();
            assert!(
                reason.contains("restore"),
                "byte {at}, life {life}: {recovered:?}"
            );
            disk = after;
        }
    }
}

#[test]
fn a_read_error_in_the_journal_is_not_taken_for_its_end() {
    let disk = twenty_batches();
    disk.inject(Fault::once(
        FaultKind::InputOutput,
        Operation::Read,
        ".journal",
        2,
    ));
    let (opened, disk) = until_power_loss(&disk, 2, |env| async move {
        Engine::open(env, soon_behind())
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    });
    assert!(opened.is_err(), "an unreadable journal must not open");
    disk.clear_faults();
    let (found, _) = until_power_loss(&disk, 3, |env| async move {
        let engine = open(&env, soon_behind()).await;
        fills(&create(&engine, 1).await).await
    });
    assert_eq!(found, (0..20).collect::<Vec<u8>>());
}

#[test]
fn an_error_on_the_journal_takes_the_shard_offline_for_good() {
    let (_, disk) = until_power_loss(&SimDisk::new(4), 4, |env| async move {
        let engine = open(&env, soon_behind()).await;
        let (one, two) = (create(&engine, 1).await, create(&engine, 2).await);
        put(&one, batch(100, 1)).await;
        put(&two, batch(100, 2)).await;
        env.disk().inject(Fault::once(
            FaultKind::InputOutput,
            Operation::Write,
            ".journal",
            0,
        ));
        let appended = one
            .append(batch(100, 3), &rules(), 1)
            .await
            .expect("the order is fixed before the write");
        let flushed = one.flushed(appended.last_offset + 1).await;
        assert!(
            flushed.is_err(),
            "what failed to be written is not acknowledged"
        );
        assert_eq!(
            one.high_watermark(),
            1,
            "nothing past the flushed offset is served"
        );
        for log in [&one, &two] {
            let again = log.append(batch(100, 4), &rules(), 1).await;
            assert!(again.is_err(), "a failed journal is not tried again");
            let waited = log.wait_for(log.high_watermark()).await;
            assert!(waited.is_err(), "a parked fetch is told");
        }
    });
    let (found, _) = until_power_loss(&disk, 5, |env| async move {
        let engine = open(&env, soon_behind()).await;
        (
            fills(&create(&engine, 1).await).await,
            fills(&create(&engine, 2).await).await,
        )
    });
    assert_eq!(found.0[0], 1, "acknowledged before the error");
    assert!(found.0.len() <= 2);
    assert_eq!(found.1, [2]);
}

#[test]
fn an_error_on_a_segment_harms_one_log_and_loses_nothing() {
    for operation in [Operation::Write, Operation::Sync] {
        let (_, disk) = until_power_loss(&SimDisk::new(6), 6, move |env| async move {
            let engine = open(&env, soon_behind()).await;
            let (bad, good) = (create(&engine, 1).await, create(&engine, 2).await);
            for fill in 0..10 {
                put(&bad, batch(3000, fill)).await;
            }
            assert!(bad.truncate_to(8).await.is_ok());
            put(&bad, batch(20_000, 8)).await;
            put(&bad, batch(100, 9)).await;
            env.disk()
                .inject(Fault::always(FaultKind::InputOutput, operation, "t1-0/"));
            // Enough for the journal to go round several times.
            for round in 0..200u8 {
                put(&good, batch(10_000, round)).await;
            }
            assert!(bad.failure().is_some(), "{operation:?}: its disk refuses");
            assert!(good.failure().is_none());
        });
        disk.clear_faults();
        let (_, _) = until_power_loss(&disk, 7, move |env| async move {
            let (engine, recovered) = open_found(&env, soon_behind()).await;
            assert!(
                recovered.iter().all(|log| log.offline.is_none()),
                "{operation:?}: {recovered:?}"
            );
            let bad = fills(&create(&engine, 1).await).await;
            assert_eq!(
                bad,
                (0..10).collect::<Vec<u8>>(),
                "{operation:?}: acknowledged, kept by the journal alone"
            );
            let good = fills(&create(&engine, 2).await).await;
            assert_eq!(good, (0..200).collect::<Vec<u8>>(), "{operation:?}");
        });
    }
}

#[test]
fn damage_before_the_recovery_point_takes_that_log_offline_and_stays() {
    let (_, disk) = until_power_loss(&SimDisk::new(8), 8, |env| async move {
        let config = EngineConfig {
            checkpoint_interval: Duration::from_millis(100),
            ..soon_behind()
        };
        let engine = open(&env, config).await;
        let (one, two) = (create(&engine, 1).await, create(&engine, 2).await);
        for fill in 0..10 {
            put(&one, batch(300, fill)).await;
            put(&two, batch(300, fill)).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    let path = Path::new("/data/t1-0/00000000000000000000.log");
    disk.flip_bit(path, 3000, 1).expect("flipped");
    let mut disk = disk;
    for life in 0..2 {
        let (recovered, after) = until_power_loss(&disk, 20 + life, |env| async move {
            let (engine, recovered) = open_found(&env, soon_behind()).await;
            assert_eq!(
                fills(&create(&engine, 2).await).await,
                (0..10).collect::<Vec<u8>>()
            );
            recovered
        });
        let bad = recovered
            .iter()
            .find(|log| &*log.topic_partition.topic == "t1")
            .expect("found");
        let reason = bad.offline.clone().unwrap_or_default();
        assert!(
            reason.contains("segment") && reason.contains("restore"),
            "life {life}: {reason:?}"
        );
        disk = after;
    }
    let (_, content) = disk
        .files()
        .into_iter()
        .find(|(found, _)| Path::new("/").join(found) == path)
        .expect("still there");
    assert!(content.len() >= 10 * 300, "nothing was cut away");
}
