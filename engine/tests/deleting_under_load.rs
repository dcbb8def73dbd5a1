//! Deleting a log that is being written, wherever the power goes: the next start opens, what was acknowledged of other logs is there, and the next log of the same
//! name holds its own records and no others.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules, batches};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

const NOW_MS: i64 = 1_704_067_200_000;

type SimLog = Rc<Log<SimEnvironment>>;

fn config() -> EngineConfig {
    EngineConfig {
        journal_first_file_bytes: 64 << 10,
        journal_file_bytes: 128 << 10,
        journal_bytes_max: 512 << 10,
        journal_entry_bytes: 32 << 10,
        journal_backlog_bytes: 128 << 10,
        tail_cache_bytes: 8 << 20,
        write_behind_age: Duration::from_millis(10),
        checkpoint_interval: Duration::from_millis(10),
        file_delete_delay: Duration::from_millis(5),
        ..EngineConfig::new(vec![PathBuf::from("/data")])
    }
}

fn id(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn name(name: &str) -> TopicPartition {
    TopicPartition::new(name, 0)
}

fn batch(fill: u8) -> Bytes {
    let builder = BatchBuilder::new().record(NOW_MS, None, Some(&vec![fill; 700]));
    Bytes::from(builder.build().expect("a batch"))
}

fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: NOW_MS,
        ..ProduceRules::default()
    }
}

async fn open(env: &SimEnvironment) -> Result<Engine<SimEnvironment>, String> {
    let config = config();
    let said = |error: ringlog_engine::engine::EngineError| error.to_string();
    prepare_directories(env, &config).await.map_err(said)?;
    let opened = Engine::open(env.clone(), config).await.map_err(said)?;
    Ok(opened.0)
}

async fn create(engine: &Engine<SimEnvironment>, log: &str, number: u8) -> SimLog {
    let config = LogConfig {
        segment_bytes: 4 << 10,
        ..LogConfig::default()
    };
    let made = engine.create_log(name(log), id(number), config, None).await;
    made.expect("made")
}

async fn put(log: &SimLog, fill: u8) -> Result<i64, String> {
    let appended = log.append(batch(fill), &rules(), 1).await;
    let appended = appended.map_err(|error| error.to_string())?;
    let flushed = log.flushed(appended.last_offset + 1).await;
    flushed.map_err(|error| error.to_string())?;
    Ok(appended.base_offset)
}

/// The fill byte of every record, in order.
async fn fills(log: &SimLog) -> Vec<u8> {
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let read = log.read(next, 1 << 20, true, ReadLimit::HighWatermark);
        let read = read.await.expect("readable");
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

/// Runs a life to its end.
fn run<F: Future<Output = T> + 'static, T: 'static>(
    executor: &Executor,
    life: impl FnOnce(SimEnvironment) -> F,
) -> T {
    let stop = StopAt {
        micros: Some(600_000_000),
        ..StopAt::default()
    };
    executor.run_until(stop, life).finished()
}

/// What was acknowledged in a life.
#[derive(Default)]
struct Acknowledged {
    kept: usize,
    anew: usize,
    done: bool,
}

/// Producers write to a log, and to one beside it, while the first is deleted and made again under its name.
async fn deleting_life(env: SimEnvironment, acknowledged: Rc<RefCell<Acknowledged>>) {
    let engine = open(&env).await.expect("opens");
    let kept = create(&engine, "kept", 1).await;
    let doomed = create(&engine, "again", 2).await;
    for _ in 0..10 {
        put(&doomed, 1).await.expect("appended");
    }
    let producing = async {
        // Ends when the log has left, not before: the last append is refused.
        let producers = (0..3).map(|_| async { while put(&doomed, 1).await.is_ok() {} });
        futures_util::future::join_all(producers).await;
    };
    let beside = async {
        for _ in 0..25 {
            put(&kept, 3).await.expect("appended");
            acknowledged.borrow_mut().kept += 1;
        }
    };
    let changing = async {
        env.sleep(Duration::from_millis(3)).await;
        engine.delete_log(&id(2), 0).await.expect("deleted");
        let again = create(&engine, "again", 4).await;
        for _ in 0..5 {
            assert!(put(&again, 2).await.is_ok());
            acknowledged.borrow_mut().anew += 1;
        }
    };
    futures_util::join!(producing, beside, changing);
    acknowledged.borrow_mut().done = true;
}

#[test]
fn a_log_deleted_under_load_is_gone_wherever_the_power_goes() {
    let mut operations = 0;
    let mut finished = false;
    while !finished {
        operations += 1;
        let acknowledged = Rc::new(RefCell::new(Acknowledged::default()));
        let shared = acknowledged.clone();
        let executor = Executor::with_disk(operations, SimDisk::new(operations));
        let stop = StopAt {
            disk_operations: Some(operations),
            micros: Some(60_000_000),
            ..StopAt::default()
        };
        let outcome = executor.run_until(stop, |env| deleting_life(env, shared));
        finished = matches!(outcome, Outcome::Finished(()));
        assert!(
            finished || executor.world().now() < 60_000_000,
            "it hangs after {operations} operations"
        );
        let disk = match operations % 3 {
            0 => executor.disk().kill(operations),
            _ => executor.disk().crash(operations),
        };
        let executor = Executor::with_disk(operations, disk);
        let (kept, anew, offline) = run(&executor, |env| async move {
            let engine = open(&env).await.unwrap_or_else(|error| {
                panic!("after {operations} operations the start fails: {error}")
            });
            let offline: Vec<String> = engine
                .logs()
                .iter()
                .filter_map(|log| Some(log.failure()?.to_string()))
                .collect();
            let mut found = (Vec::new(), Vec::new(), offline);
            if let Some(log) = engine.log(&id(1), 0) {
                found.0 = fills(&log).await;
            }
            if let Some(log) = engine.log(&id(4), 0) {
                found.1 = fills(&log).await;
            }
            found
        });
        assert_eq!(offline, Vec::<String>::new(), "{operations} operations");
        let acknowledged = acknowledged.borrow();
        assert!(kept.len() >= acknowledged.kept && kept.iter().all(|fill| *fill == 3));
        assert!(
            anew.len() >= acknowledged.anew && anew.iter().all(|fill| *fill == 2),
            "{operations} operations: {anew:?} where {} were acknowledged",
            acknowledged.anew
        );
        assert!(!acknowledged.done || finished);
    }
    assert!(operations > 100, "the lives are too short to tell anything");
}

/// Whether a directory of the log is left, under whatever name.
fn left(disk: &SimDisk, log: &str) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files
        .filter(|path| path.to_string_lossy().contains(log))
        .collect()
}

#[test]
fn a_checkpoint_file_that_cannot_be_written_does_not_keep_a_deleted_log() {
    let executor = Executor::new(1);
    let done = executor.run_until(
        StopAt {
            micros: Some(600_000_000),
            ..StopAt::default()
        },
        |env| async move {
            let engine = open(&env).await.expect("opens");
            let (doomed, kept) = (
                create(&engine, "doomed", 1).await,
                create(&engine, "kept", 2).await,
            );
            for _ in 0..20 {
                put(&doomed, 1).await.expect("appended");
            }
            env.sleep(Duration::from_millis(200)).await;
            put(&doomed, 1).await.expect("appended");
            env.disk().inject(Fault::always(
                FaultKind::InputOutput,
                Operation::Open,
                "checkpoint.0.tmp",
            ));
            // Told or not: it is gone, with all it held.
            let _ = engine.delete_log(&id(1), 0).await;
            env.disk().clear_faults();
            // The journal goes round several times.
            for _ in 0..3000 {
                put(&kept, 2).await.expect("appended");
            }
            env.sleep(Duration::from_secs(1)).await;
            assert!(engine.log(&id(1), 0).is_none());
            // And the name is free, without what was said of the one before.
            let again = create(&engine, "doomed", 3).await;
            put(&again, 3).await.expect("appended");
        },
    );
    assert_eq!(done, Outcome::Finished(()), "the journal is never freed");
    let disk = executor.disk().crash(1);
    assert!(
        left(&disk, "doomed")
            .iter()
            .all(|path| path.to_string_lossy().contains("doomed-0/")),
        "its files were not removed: {:?}",
        left(&disk, "doomed")
    );
    let found = run(&Executor::with_disk(2, disk), |env| async move {
        let engine = open(&env).await.expect("opens");
        fills(&engine.log(&id(3), 0).expect("there")).await
    });
    assert_eq!(found, [3]);
}

#[test]
fn many_logs_are_deleted_with_few_waits() {
    let executor = Executor::new(1);
    let (one, many) = run(&executor, |env| async move {
        let engine = open(&env).await.expect("opens");
        for number in 1..=101u8 {
            let log = create(&engine, &format!("t{number}"), number).await;
            put(&log, 1).await.expect("appended");
        }
        env.sleep(Duration::from_millis(500)).await;
        let start = env.now();
        engine.delete_log(&id(1), 0).await.expect("deleted");
        let one = env.now() - start;
        let all: Vec<_> = (2..=101u8).map(|number| (id(number), 0)).collect();
        let start = env.now();
        engine.delete_logs(&all).await.expect("deleted");
        assert!(engine.logs().is_empty());
        (one, env.now() - start)
    });
    // Virtual time: what counts is how many operations wait for each other.
    assert!(many < 20 * one, "one: {one} us, a hundred: {many} us");
}

#[test]
fn a_directory_of_another_topic_is_left_alone() {
    let executor = Executor::new(1);
    let found = run(&executor, |env| async move {
        let engine = open(&env).await.expect("opens");
        let log = create(&engine, "one", 1).await;
        put(&log, 1).await.expect("appended");
        env.disk().inject(Fault::always(
            FaultKind::InputOutput,
            Operation::Names,
            "/data/one-0",
        ));
        engine
            .delete_log(&id(1), 0)
            .await
            .expect_err("its directory cannot be renamed");
        env.disk().clear_faults();
        let again = create(&engine, "one", 2).await;
        let refused = put(&again, 2).await.expect_err("it is not its directory");
        (refused, again.failure())
    });
    assert!(found.0.contains("restart the broker"), "{}", found.0);
    assert_eq!(found.1, None, "it is not the log's fault");
    let metadata = executor
        .disk()
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with("one-0/partition.metadata"));
    let text = String::from_utf8(metadata.expect("there").1).expect("text");
    assert!(text.contains(&id(1).to_string()));
}
