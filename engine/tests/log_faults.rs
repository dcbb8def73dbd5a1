//! What the engine does when a disk fails it: damage and errors are met with the partition or the shard offline and a message that says what to do, never with
//! records cut away; and what was acknowledged is there again once the disk works.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, RecoveredLog, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, SimEnvironment};

type SimLog = Rc<Log<SimEnvironment>>;

fn config() -> EngineConfig {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.journal_first_file_bytes = 64 << 10;
    config.journal_file_bytes = 128 << 10;
    config.journal_bytes_max = 512 << 10;
    config.journal_entry_bytes = 32 << 10;
    config.tail_cache_bytes = 4 << 20;
    config.write_behind_bytes = 32 << 10;
    config.write_behind_age = Duration::from_millis(100);
    config
}

fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn batch(fill: u8, size: usize) -> Bytes {
    let builder = BatchBuilder::new().record(1_704_067_200_000, None, Some(&vec![fill; size]));
    Bytes::from(builder.build().expect("a batch"))
}

fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    }
}

async fn open(env: &SimEnvironment) -> (Engine<SimEnvironment>, Vec<RecoveredLog>) {
    let config = config();
    prepare_directories(env, &config).await.expect("prepared");
    Engine::open(env.clone(), config).await.expect("opened")
}

async fn create(engine: &Engine<SimEnvironment>, number: u8) -> SimLog {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let created = engine.create_log(name, id(number), LogConfig::default(), None);
    created.await.expect("made")
}

async fn put(log: &SimLog, fill: u8, size: usize) {
    let appended = log
        .append(batch(fill, size), &rules(), 1)
        .await
        .expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
}

/// The fill byte of every record, in order; each batch holds one.
async fn fills(log: &SimLog) -> Vec<u8> {
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let read = log
            .read(next, 1 << 20, true, ReadLimit::HighWatermark)
            .await
            .expect("readable");
        if read.is_empty() {
            return found;
        }
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a batch");
            assert!(batch.checksum_matches());
            found.push(batch.bytes[batch.bytes.len() - 2]);
        }
        next = read.next_offset;
    }
}

/// Runs a life on `disk` to its end.
fn live<F: Future<Output = T> + 'static, T: 'static>(
    seed: u64,
    disk: &SimDisk,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(seed, disk.clone());
    let result = executor.run_until(Default::default(), life).finished();
    let after = executor.disk().crash(seed + 1000);
    (result, after)
}

/// Twenty acknowledged batches, then the power goes; returns the disk.
fn twenty_batches() -> SimDisk {
    let (_, disk) = live(1, &SimDisk::new(1), |env| async move {
        let (engine, _) = open(&env).await;
        let log = create(&engine, 1).await;
        for fill in 0..20 {
            put(&log, fill, 3000).await;
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
            let (recovered, after) = live(10 + life, &disk, |env| async move {
                let (engine, recovered) = open(&env).await;
                let log = create(&engine, 1).await;
                assert!(
                    log.append(batch(1, 10), &rules(), 1).await.is_err(),
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
    let (opened, disk) = live(2, &disk, |env| async move {
        Engine::open(env, config())
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    });
    assert!(opened.is_err(), "an unreadable journal must not open");
    disk.clear_faults();
    let (found, _) = live(3, &disk, |env| async move {
        let (engine, _) = open(&env).await;
        fills(&create(&engine, 1).await).await
    });
    assert_eq!(found, (0..20).collect::<Vec<u8>>());
}

#[test]
fn an_error_on_the_journal_takes_the_shard_offline_for_good() {
    let (_, disk) = live(4, &SimDisk::new(4), |env| async move {
        let (engine, _) = open(&env).await;
        let (one, two) = (create(&engine, 1).await, create(&engine, 2).await);
        put(&one, 1, 100).await;
        put(&two, 2, 100).await;
        env.disk().inject(Fault::once(
            FaultKind::InputOutput,
            Operation::Write,
            ".journal",
            0,
        ));
        let appended = one
            .append(batch(3, 100), &rules(), 1)
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
            let again = log.append(batch(4, 100), &rules(), 1).await;
            assert!(again.is_err(), "a failed journal is not tried again");
            let waited = log.wait_for(log.high_watermark()).await;
            assert!(waited.is_err(), "a parked fetch is told");
        }
    });
    let (found, _) = live(5, &disk, |env| async move {
        let (engine, _) = open(&env).await;
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
        let (_, disk) = live(6, &SimDisk::new(6), move |env| async move {
            let (engine, _) = open(&env).await;
            let (bad, good) = (create(&engine, 1).await, create(&engine, 2).await);
            for fill in 0..10 {
                put(&bad, fill, 3000).await;
            }
            assert!(bad.truncate_to(8).await.is_ok());
            put(&bad, 8, 20_000).await;
            put(&bad, 9, 100).await;
            env.disk()
                .inject(Fault::always(FaultKind::InputOutput, operation, "t1-0/"));
            // Enough for the journal to go round several times.
            for round in 0..200u8 {
                put(&good, round, 10_000).await;
            }
            assert!(bad.failure().is_some(), "{operation:?}: its disk refuses");
            assert!(good.failure().is_none());
        });
        disk.clear_faults();
        let (_, _) = live(7, &disk, move |env| async move {
            let (engine, recovered) = open(&env).await;
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
    let (_, disk) = live(8, &SimDisk::new(8), |env| async move {
        let mut config = config();
        config.checkpoint_interval = Duration::from_millis(100);
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
        let (one, two) = (create(&engine, 1).await, create(&engine, 2).await);
        for fill in 0..10 {
            put(&one, fill, 300).await;
            put(&two, fill, 300).await;
        }
        env.sleep(Duration::from_secs(2)).await;
    });
    let path = Path::new("/data/t1-0/00000000000000000000.log");
    disk.flip_bit(path, 3000, 1).expect("flipped");
    let mut disk = disk;
    for life in 0..2 {
        let (recovered, after) = live(20 + life, &disk, |env| async move {
            let (engine, recovered) = open(&env).await;
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
