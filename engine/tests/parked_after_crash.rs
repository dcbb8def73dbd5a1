//! What a start after a crash leaves in the journal is the log's end all the same: it can be read, deleted, truncated and appended to, survives another crash at any moment, holds up
//! neither the journal nor a full disk, and damage to it takes its log offline, with a message, and no other.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join_all, select};
use ringlog_engine::batch::{BatchBuilder, ProduceRules, assign, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

type SimLog = Rc<Log<SimEnvironment>>;

const LOGS: u8 = 3;
const BATCHES: i64 = 24;
const NOW_MS: i64 = 1_704_067_200_000;

/// Nothing is written behind or checkpointed unless something presses.
fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 128 << 10,
        journal_file_bytes: 128 << 10,
        journal_bytes_max: 1 << 20,
        journal_entry_bytes: 64 << 10,
        journal_backlog_bytes: 256 << 10,
        tail_cache_bytes: 4 << 20,
        write_behind_bytes: 1 << 30,
        write_behind_age: Duration::from_secs(1_000_000),
        checkpoint_interval: Duration::from_secs(1_000_000),
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

/// Batches of many lengths, of whole blocks among them, each told by its bytes.
fn batch(log: u8, number: i64) -> Bytes {
    let of = |length: usize| {
        let fill = [(log * 64).wrapping_add(number as u8); 8192];
        let builder = BatchBuilder::new()
            .producer(i64::from(log), 0, number as i32)
            .record(NOW_MS, None, Some(&fill[..length]));
        builder.build().expect("a batch")
    };
    let length = [4096, 1500, 4096, 5000, 8192 - 6500, 2000][number as usize % 6];
    let overhead = of(length).len() - length;
    Bytes::from(of(length - overhead))
}

fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: NOW_MS,
        ..ProduceRules::default()
    }
}

fn id(number: u8) -> TopicId {
    TopicId([number + 1; 16])
}

async fn open(env: &SimEnvironment, config: EngineConfig) -> Engine<SimEnvironment> {
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, found) = Engine::open(env.clone(), config).await.expect("opened");
    let offline: Vec<_> = found.iter().filter_map(|log| log.offline.clone()).collect();
    assert_eq!(offline, Vec::<String>::new());
    engine
}

async fn make(engine: &Engine<SimEnvironment>, number: u8) -> SimLog {
    let name = TopicPartition::new(format!("t{number}"), 0);
    let settings = LogConfig {
        segment_bytes: 24 << 10,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let made = engine.create_log(name, id(number), settings, None);
    made.await.expect("made")
}

async fn put(log: &SimLog, batch: Bytes) -> bool {
    let appended = log.append(batch, &rules(), 1).await.expect("appended");
    let flushed = log.flushed(appended.last_offset + 1).await;
    flushed.expect("flushed");
    appended.duplicate
}

/// The log's batches as they lie in it; an error where it cannot be read.
async fn content(log: &SimLog) -> Result<Vec<Bytes>, String> {
    let (mut next, mut found) = (log.log_start_offset(), Vec::new());
    while next < log.log_end_offset() {
        let read = log.read(next, 1 << 20, true, ReadLimit::LogEnd);
        let read = read.await.map_err(|error| error.to_string())?;
        for batch in batches(&read.pieces.concat()) {
            let batch = batch.expect("a batch");
            assert!(batch.checksum_matches());
            found.push(Bytes::copy_from_slice(batch.bytes));
        }
        next = read.next_offset;
    }
    Ok(found)
}

/// What a log holds whose first batches are these.
fn expected(log: u8, count: i64) -> Vec<Bytes> {
    let all = (0..count).map(|number| {
        let mut batch = batch(log, number).to_vec();
        assert!(assign(&mut batch, number, 1));
        Bytes::from(batch)
    });
    all.collect()
}

/// Runs a life until it ends, or to the disk operation at which it is killed.
fn live<F: Future<Output = T> + 'static, T: 'static>(
    disk: &SimDisk,
    killed_at: Option<u64>,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (Option<T>, SimDisk) {
    // A copy: what a life does to its disk is not for the next one to find on this.
    let executor = Executor::with_disk(7, disk.crash(5));
    let stop = StopAt {
        micros: Some(3_600_000_000),
        disk_operations: killed_at,
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop, life);
    assert!(
        killed_at.is_some() || !matches!(outcome, Outcome::Stopped),
        "it hangs"
    );
    let result = match outcome {
        Outcome::Finished(result) => Some(result),
        Outcome::Stopped => None,
    };
    (result, executor.disk().crash(11))
}

/// Three logs of which the journal holds everything.
fn crashed() -> SimDisk {
    let (done, disk) = live(&SimDisk::new(1), None, |env| async move {
        let engine = open(&env, config()).await;
        let mut logs = Vec::new();
        for number in 0..LOGS {
            logs.push(make(&engine, number).await);
        }
        for number in 0..BATCHES {
            for (log, of) in logs.iter().zip(0..) {
                assert!(!put(log, batch(of, number)).await);
            }
        }
        assert!(logs.iter().all(|log| log.log_end_offset() == BATCHES));
    });
    done.expect("done");
    disk
}

fn all_parked(engine: &Engine<SimEnvironment>) {
    let metrics = engine.metrics();
    assert_eq!(metrics.parked_batches, LOGS as u64 * BATCHES as u64);
    assert_eq!(metrics.settled_batches, 0);
}

/// The next life finds these logs with these many batches.
fn check(disk: &SimDisk, logs: Vec<(u8, i64)>) {
    let (done, _) = live(disk, None, |env| async move {
        let engine = open(&env, config()).await;
        for (number, count) in logs {
            let log = engine.log(&id(number), 0).expect("there");
            assert_eq!(content(&log).await, Ok(expected(number, count)));
        }
    });
    done.expect("done");
}

/// Where in which file of the journal a log's batch lies.
fn place_of(disk: &SimDisk, log: u8, number: i64) -> (PathBuf, u64) {
    let wanted = &expected(log, number + 1)[number as usize][..80];
    for (path, bytes) in disk.files() {
        let is_journal = path.extension().is_some_and(|kind| kind == "journal");
        let found = bytes.windows(wanted.len()).position(|part| part == wanted);
        if let (true, Some(position)) = (is_journal, found) {
            return (PathBuf::from("/").join(path), position as u64);
        }
    }
    panic!("the journal does not hold it");
}

#[test]
fn it_is_read_appended_to_and_survives_crashes() {
    let disk = crashed();
    // Read, in the middle of it another crash, or not read at all.
    for killed_at in (0..160).step_by(5) {
        let (_, after) = live(&disk, Some(killed_at), |env| async move {
            let engine = open(&env, config()).await;
            let logs = join_all((0..LOGS).map(|number| make(&engine, number))).await;
            let both = join_all(logs.iter().chain(&logs).map(content)).await;
            for (found, number) in both.iter().zip((0..LOGS).cycle()) {
                assert_eq!(found, &Ok(expected(number, BATCHES)));
            }
            engine.shutdown_clean().await.expect("stopped");
        });
        check(&after, (0..LOGS).map(|log| (log, BATCHES)).collect());
    }
    let (done, disk) = live(&disk, None, |env| async move {
        let engine = open(&env, config()).await;
        all_parked(&engine);
        let log = engine.log(&id(1), 0).expect("there");
        assert!(put(&log, batch(1, BATCHES - 1)).await, "sent before");
        assert_eq!(engine.metrics().settled_batches, 0);
        assert!(!put(&log, batch(1, BATCHES)).await);
        assert!(engine.metrics().settled_batches >= BATCHES as u64);
    });
    done.expect("done");
    check(&disk, vec![(0, BATCHES), (1, BATCHES + 1), (2, BATCHES)]);
}

#[test]
fn a_bit_that_rots_takes_its_log_offline_and_no_other() {
    let disk = crashed();
    let (path, start) = place_of(&disk, 1, 13);
    // In its base offset, length, leader epoch, checksum and records: some of that its checksum does not cover.
    for (byte, bit) in [(7, 0), (11, 1), (15, 1), (18, 3), (70, 2)] {
        let path = path.clone();
        let (done, after) = live(&disk, None, |env| async move {
            let engine = open(&env, config()).await;
            all_parked(&engine);
            env.disk().flip_bit(&path, start + byte, bit).expect("rots");
            let log = engine.log(&id(1), 0).expect("there");
            let error = content(&log).await.expect_err("damaged");
            assert!(
                error.contains("the journal no longer holds the batch at offset 13"),
                "{error}"
            );
            assert!(log.failure().is_some());
            assert!(log.append(batch(1, BATCHES), &rules(), 1).await.is_err());
            for number in [0, 2] {
                let log = engine.log(&id(number), 0).expect("there");
                assert_eq!(content(&log).await, Ok(expected(number, BATCHES)));
                put(&log, batch(number, BATCHES)).await;
            }
            engine.shutdown_clean().await.expect("stopped");
        });
        done.expect("done");
        // And nothing is cut away by the next start.
        let (done, _) = live(&after, None, |env| async move {
            prepare_directories(&env, &config())
                .await
                .expect("prepared");
            let (engine, found) = Engine::open(env.clone(), config()).await.expect("opened");
            let offline = found.iter().find(|log| log.topic_id == id(1));
            assert!(
                offline.is_some_and(|log| log.offline.is_some()),
                "byte {byte}"
            );
            let log = engine.log(&id(1), 0).expect("there");
            content(&log).await.expect_err("still damaged");
        });
        done.expect("done");
    }
}

#[test]
fn an_unreadable_journal_takes_its_log_offline_until_it_can_be_read() {
    let (done, disk) = live(&crashed(), None, |env| async move {
        let engine = open(&env, config()).await;
        let read = |path| Fault::always(FaultKind::InputOutput, Operation::Read, path);
        env.disk().inject(read(".journal"));
        let log = engine.log(&id(1), 0).expect("there");
        let error = content(&log).await.expect_err("unreadable");
        assert!(error.contains("cannot be read from the journal"), "{error}");
        env.disk().clear_faults();
        assert!(log.append(batch(1, BATCHES), &rules(), 1).await.is_err());
        let log = engine.log(&id(2), 0).expect("there");
        assert_eq!(content(&log).await, Ok(expected(2, BATCHES)));
    });
    done.expect("done");
    check(&disk, (0..LOGS).map(|log| (log, BATCHES)).collect());
}

#[test]
fn it_can_be_deleted_and_its_name_given_to_another() {
    let disk = crashed();
    for killed_at in (0..80).step_by(4).map(Some).chain([None]) {
        let (made, after) = live(&disk, killed_at, |env| async move {
            let engine = open(&env, config()).await;
            all_parked(&engine);
            let log = engine.log(&id(1), 0).expect("there");
            let reading = content(&log);
            let one = id(1);
            let deleting = engine.delete_log(&one, 0);
            let (_, deleted) = futures_util::join!(reading, deleting);
            deleted.expect("deleted");
            let name = TopicPartition::new("t1", 0);
            let made = engine.create_log(name, id(9), LogConfig::default(), None);
            put(&made.await.expect("made"), batch(1, 0)).await;
        });
        let (done, _) = live(&after, None, |env| async move {
            let engine = open(&env, config()).await;
            if made.is_some() {
                assert!(engine.log(&id(1), 0).is_none());
                let log = engine.log(&id(9), 0).expect("there");
                assert_eq!(content(&log).await, Ok(expected(1, 1)));
            } else if let Some(log) = engine.log(&id(1), 0) {
                assert_eq!(content(&log).await, Ok(expected(1, BATCHES)));
            }
            for number in [0, 2] {
                let log = engine.log(&id(number), 0).expect("there");
                assert_eq!(content(&log).await, Ok(expected(number, BATCHES)));
            }
        });
        done.expect("done");
    }
}

#[test]
fn it_can_be_truncated() {
    let disk = crashed();
    for killed_at in (0..120).step_by(3).map(Some).chain([None]) {
        let (truncated, after) = live(&disk, killed_at, |env| async move {
            let engine = open(&env, config()).await;
            all_parked(&engine);
            let log = engine.log(&id(1), 0).expect("there");
            let (read, end) = futures_util::join!(content(&log), log.truncate_to(10));
            assert_eq!(end, Ok(10));
            read.expect("what there is can be read");
            assert_eq!(content(&log).await, Ok(expected(1, 10)));
            assert!(!put(&log, batch(1, 10)).await);
        });
        let (done, _) = live(&after, None, |env| async move {
            let engine = open(&env, config()).await;
            let log = engine.log(&id(1), 0).expect("there");
            let count = log.log_end_offset();
            let may_be: &[i64] = match truncated {
                Some(()) => &[11],
                None => &[BATCHES, 10, 11],
            };
            assert!(may_be.contains(&count), "{count}");
            assert_eq!(content(&log).await, Ok(expected(1, count)));
        });
        done.expect("done");
    }
}

#[test]
fn records_before_an_offset_can_be_deleted_from_it() {
    let (done, disk) = live(&crashed(), None, |env| async move {
        let engine = open(&env, config()).await;
        let log = engine.log(&id(1), 0).expect("there");
        assert_eq!(log.delete_records_before(15).await.expect("deleted"), 15);
        assert_eq!(content(&log).await, Ok(expected(1, BATCHES)[15..].to_vec()));
    });
    done.expect("done");
    let (done, _) = live(&disk, None, |env| async move {
        let engine = open(&env, config()).await;
        let log = engine.log(&id(1), 0).expect("there");
        assert_eq!(content(&log).await, Ok(expected(1, BATCHES)[15..].to_vec()));
    });
    done.expect("done");
}

#[test]
fn a_full_disk_makes_it_wait_and_loses_nothing() {
    let config = EngineConfig {
        tail_cache_bytes: 64 << 10,
        // What could not be written is tried again after this long.
        write_behind_age: Duration::from_secs(1),
        ..config()
    };
    let (done, disk) = live(&crashed(), None, |env| async move {
        let engine = open(&env, config).await;
        all_parked(&engine);
        let logs: Vec<_> = engine.logs();
        // No space to be reserved: nothing comes into memory that could not leave it.
        let full = |operation| Fault::always(FaultKind::OutOfSpace, operation, ".log");
        env.disk().inject(full(Operation::Resize));
        for read in join_all(logs.iter().map(content)).await {
            let error = read.expect_err("there is no space");
            assert!(error.contains("reserving space"), "{error}");
        }
        assert!(logs.iter().all(|log| log.failure().is_none()));
        all_parked(&engine);
        env.disk().clear_faults();
        // And one that has promised space and does not give it.
        env.disk().inject(full(Operation::Write));
        let reading = async {
            // Memory holds a part of it, and the disk does not take the rest.
            let read = join_all(logs.iter().map(content)).await;
            (read, env.disk().clone())
        };
        let space = async {
            env.sleep(Duration::from_secs(3)).await;
            for log in &logs {
                assert_eq!(log.failure(), None);
            }
            let settled = engine.metrics().settled_batches;
            assert!(
                settled < LOGS as u64 * BATCHES as u64,
                "the disk was not full"
            );
            env.disk().clear_faults();
        };
        let ((read, _), ()) = futures_util::join!(reading, space);
        for (log, found) in logs.iter().zip(read) {
            let number = log.topic_id().0[0] - 1;
            assert_eq!(found, Ok(expected(number, BATCHES)));
        }
        engine.shutdown_clean().await.expect("stopped");
    });
    done.expect("done");
    check(&disk, (0..LOGS).map(|log| (log, BATCHES)).collect());
}

#[test]
fn it_does_not_block_the_journal() {
    let (done, disk) = live(&crashed(), None, |env| async move {
        let engine = open(&env, config()).await;
        all_parked(&engine);
        let busy = make(&engine, 3).await;
        // Several times what the journal may hold.
        for number in 0..1500 {
            put(&busy, batch(3, number)).await;
        }
        let metrics = engine.metrics();
        assert_eq!(metrics.settled_batches, metrics.parked_batches);
        assert!(metrics.journal.file_bytes <= config().journal_bytes_max);
    });
    done.expect("done");
    check(
        &disk,
        (0..LOGS)
            .map(|log| (log, BATCHES))
            .chain([(3, 1500)])
            .collect(),
    );
}

#[test]
fn who_waits_for_the_journal_is_told_that_a_disk_is_full() {
    let (done, disk) = live(&crashed(), None, |env| async move {
        let engine = open(&env, config()).await;
        let busy = make(&engine, 3).await;
        // One log has no space for what is parked of it, and so holds the journal's first file.
        let full = Fault::always(FaultKind::OutOfSpace, Operation::Resize, "/t0-0/");
        env.disk().inject(full);
        let putting = async {
            for number in 0..1500 {
                let put = busy.append(batch(3, number), &rules(), 1).await;
                if let Err(error) = put {
                    return error.to_string();
                }
            }
            panic!("the journal had room for everything");
        };
        let patience = env.sleep(Duration::from_secs(600));
        let told = match select(std::pin::pin!(putting), std::pin::pin!(patience)).await {
            Either::Left((told, _)) => told,
            Either::Right(_) => panic!("nobody was told"),
        };
        assert!(told.contains("space"), "{told}");
        env.disk().clear_faults();
        let end = busy.log_end_offset();
        assert!(end < 1500);
        while busy.append(batch(3, end), &rules(), 1).await.is_err() {
            env.sleep(Duration::from_secs(1)).await;
        }
        engine.shutdown_clean().await.expect("stopped");
    });
    done.expect("done");
    check(&disk, (0..LOGS).map(|log| (log, BATCHES)).collect());
}

#[test]
fn one_that_rots_holds_up_the_journal_until_it_is_deleted() {
    let disk = crashed();
    let (path, start) = place_of(&disk, 1, 13);
    let (done, _) = live(&disk, None, |env| async move {
        let engine = open(&env, config()).await;
        env.disk().flip_bit(&path, start + 70, 2).expect("rots");
        let log = engine.log(&id(1), 0).expect("there");
        content(&log).await.expect_err("damaged");
        let busy = make(&engine, 3).await;
        let putting = async {
            for number in 0..1500 {
                put(&busy, batch(3, number)).await;
            }
        };
        let deleting = async {
            env.sleep(Duration::from_secs(60)).await;
            let held_at = busy.log_end_offset();
            assert!(
                held_at < 1500,
                "the journal let go of what it could not say again"
            );
            assert_eq!(busy.failure(), None);
            engine.delete_log(&id(1), 0).await.expect("deleted");
        };
        futures_util::join!(putting, deleting);
        assert_eq!(busy.log_end_offset(), 1500);
        assert!(engine.metrics().journal.file_bytes <= config().journal_bytes_max);
    });
    done.expect("done");
}
