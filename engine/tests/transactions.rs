//! Transactions on one log, step by step: the last stable offset and who waits for it, the transaction index and its file, what a truncation opens again, and what is made anew
//! when index files are lost.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use ringlog_engine::batch::{
    Attributes, BatchBuilder, BatchHeader, EndTransactionMarker, ProduceRules,
};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::producer_state::ProducerBatch;
use ringlog_engine::sim::{Executor, SimEnvironment};

type SimLog = Rc<Log<SimEnvironment>>;

async fn open(env: &SimEnvironment) -> (Engine<SimEnvironment>, SimLog) {
    let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
    config.checkpoint_interval = Duration::from_millis(50);
    config.write_behind_age = Duration::from_millis(20);
    config.loaded_index_bytes_max = 0;
    prepare_directories(env, &config).await.expect("prepared");
    let (engine, recovered) = Engine::open(env.clone(), config).await.expect("opened");
    assert!(recovered.iter().all(|log| log.offline.is_none()));
    let log_config = LogConfig {
        segment_bytes: 8 << 10,
        ..LogConfig::default()
    };
    let log = engine
        .create_log(
            TopicPartition::new("t", 0),
            TopicId([1; 16]),
            log_config,
            None,
        )
        .await
        .expect("the log");
    (engine, log)
}

/// One record of a transaction of `producer_id`; returns its offset.
async fn put(log: &SimLog, producer_id: i64, sequence: i32, size: usize) -> i64 {
    let batch = BatchBuilder::new()
        .producer(producer_id, 0, sequence)
        .attributes(Attributes::default().with_transactional(true))
        .record(1_704_067_200_000, None, Some(&vec![7; size]))
        .build()
        .expect("a batch");
    let header = BatchHeader::parse(&batch).expect("a header");
    let rules = ProduceRules {
        transactional_allowed: true,
        now_ms: 1_704_067_200_000,
        ..ProduceRules::default()
    };
    let producer = ProducerBatch::of(&header).expect("a producer");
    let guard = log.begin_verification(&producer, false).expect("current");
    let appended = log.append_verified(Bytes::from(batch), &rules, 1, guard);
    let offset = appended.await.expect("appended").base_offset;
    log.flushed(offset + 1).await.expect("flushed");
    offset
}

async fn end(log: &SimLog, producer_id: i64, committed: bool) -> i64 {
    let marker = EndTransactionMarker {
        producer_id,
        producer_epoch: 0,
        coordinator_epoch: 1,
        committed,
        timestamp: 1_704_067_200_000,
    };
    let appended = log.append_marker(&marker, 1, 1).await.expect("appended");
    log.flushed(appended.last_offset + 1)
        .await
        .expect("flushed");
    appended.base_offset
}

fn live<T: 'static, F: Future<Output = T> + 'static>(
    disk: &SimDisk,
    life: impl FnOnce(SimEnvironment) -> F,
) -> (T, SimDisk) {
    let executor = Executor::with_disk(1, disk.clone());
    let result = executor.run_until(Default::default(), life).finished();
    (result, executor.disk().crash(2))
}

#[test]
fn the_last_stable_offset_waits_for_every_open_transaction() {
    live(&SimDisk::new(1), |env| async move {
        let (_engine, log) = open(&env).await;
        assert_eq!(put(&log, 1, 0, 10).await, 0);
        assert_eq!(put(&log, 2, 0, 10).await, 1);
        assert_eq!((log.last_stable_offset(), log.high_watermark()), (0, 2));
        let read = log.read(0, 1 << 20, true, ReadLimit::LastStableOffset);
        let read = read.await.expect("readable");
        assert!(read.is_empty());
        assert_eq!((read.last_stable_offset, read.high_watermark), (0, 2));
        let mut stable = Box::pin(log.wait_for_stable(0));
        assert!((&mut stable).now_or_never().is_none());
        // Who began last ends first: nothing is stable yet.
        assert_eq!(end(&log, 2, true).await, 2);
        assert!((&mut stable).now_or_never().is_none());
        assert_eq!(log.last_stable_offset(), 0);
        assert_eq!(end(&log, 1, false).await, 3);
        stable.await.expect("woken");
        assert_eq!(log.last_stable_offset(), 4);
        assert_eq!(
            log.aborted_transactions(0, 4).await.expect("known"),
            [(1, 0)]
        );
        assert_eq!(
            log.aborted_transactions(3, 4).await.expect("known"),
            [(1, 0)]
        );
        // Ended again, nothing changes.
        end(&log, 1, true).await;
        assert_eq!(log.last_stable_offset(), 5);
        assert_eq!(
            log.aborted_transactions(0, 5).await.expect("known"),
            [(1, 0)]
        );
        let state = log.producer_states();
        let shown = state.iter().map(|producer| {
            (
                producer.producer_id,
                producer.coordinator_epoch,
                producer.current_transaction_start_offset,
            )
        });
        assert_eq!(shown.collect::<Vec<_>>(), [(1, 1, -1), (2, 1, -1)]);
    });
}

#[test]
fn records_deleted_with_an_open_transaction_hold_nothing_back() {
    live(&SimDisk::new(1), |env| async move {
        let (_engine, log) = open(&env).await;
        put(&log, 1, 0, 10).await;
        put(&log, 1, 1, 10).await;
        assert_eq!(log.last_stable_offset(), 0);
        log.delete_records_before(1).await.expect("deleted");
        assert_eq!(log.last_stable_offset(), 1);
    });
}

#[test]
fn a_truncation_opens_what_its_marker_ended() {
    live(&SimDisk::new(1), |env| async move {
        let (_engine, log) = open(&env).await;
        put(&log, 1, 0, 10).await;
        put(&log, 2, 0, 10).await;
        end(&log, 1, false).await;
        let marker = end(&log, 2, false).await;
        assert_eq!(
            log.aborted_transactions(0, 4).await.expect("known").len(),
            2
        );
        log.truncate_to(marker).await.expect("truncated");
        assert_eq!(log.last_stable_offset(), 1);
        assert_eq!(
            log.aborted_transactions(0, 3).await.expect("known"),
            [(1, 0)]
        );
        end(&log, 2, true).await;
        assert_eq!(log.last_stable_offset(), 4);
        assert_eq!(
            log.aborted_transactions(0, 4).await.expect("known"),
            [(1, 0)]
        );
    });
}

/// A log of several segments: producer 1's transaction reaches over all of them, producer 2's are short; both are aborted. Then a clean stop.
fn several_segments() -> (i64, SimDisk) {
    live(&SimDisk::new(1), |env| async move {
        let (engine, log) = open(&env).await;
        put(&log, 1, 0, 10).await;
        for number in 0..12 {
            put(&log, 2, number, 3000).await;
            end(&log, 2, number % 2 == 0).await;
        }
        end(&log, 1, false).await;
        let stable = log.last_stable_offset();
        assert_eq!(stable, log.log_end_offset());
        engine.shutdown_clean().await.expect("a clean stop");
        stable
    })
}

/// What [`several_segments`] aborted in its whole log.
fn expected() -> Vec<(i64, i64)> {
    let short = (0..12).filter(|number| number % 2 == 1);
    let mut all: Vec<_> = short.map(|number| (2, 1 + 2 * number)).collect();
    all.push((1, 0));
    all
}

async fn aborted(env: &SimEnvironment, end: i64) -> Vec<(i64, i64)> {
    let (_engine, log) = open(env).await;
    assert_eq!(log.last_stable_offset(), end);
    let found = log.aborted_transactions(0, end).await.expect("known");
    // In the middle, whose marker is segments away is known, too.
    let middle = log.aborted_transactions(5, 6).await.expect("known");
    assert_eq!(middle, [(1, 0)]);
    // And again, from what was kept.
    assert_eq!(
        log.aborted_transactions(0, end).await.expect("known"),
        found
    );
    found
}

#[test]
fn lost_transaction_indexes_are_made_anew() {
    let (end, disk) = several_segments();
    let kinds = |disk: &SimDisk, kind: &str| -> Vec<PathBuf> {
        let files = disk
            .files()
            .into_iter()
            .map(|(path, _)| Path::new("/").join(path));
        files
            .filter(|path| path.extension().is_some_and(|found| found == kind))
            .collect()
    };
    assert!(kinds(&disk, "log").len() > 3, "several segments");
    let indexes = kinds(&disk, "txnindex");
    let entries: usize = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|kind| kind == "txnindex"))
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!(entries, expected().len() * 34, "Kafka's entries");
    let (found, disk) = live(&disk, move |env| async move { aborted(&env, end).await });
    assert_eq!(found, expected());
    // Damaged, or away with the others: the batches tell.
    for path in &indexes {
        disk.place(path, &[1; 33]).expect("placed");
    }
    let (found, disk) = live(&disk, move |env| async move { aborted(&env, end).await });
    assert_eq!(found, expected());
    let (found, _) = live(&disk, move |env| async move {
        for kind in ["index", "timeindex", "txnindex"] {
            for entry in env
                .disk()
                .list(Path::new("/data/t-0"))
                .await
                .expect("listed")
            {
                if entry.name.ends_with(&format!(".{kind}")) {
                    let path = Path::new("/data/t-0").join(&entry.name);
                    env.disk().remove_file(&path).await.expect("removed");
                }
            }
        }
        aborted(&env, end).await
    });
    assert_eq!(found, expected());
}

#[test]
fn what_is_aborted_in_a_segment_that_is_gone_on_with_is_known_later() {
    let ((), disk) = live(&SimDisk::new(1), |env| async move {
        let (engine, log) = open(&env).await;
        for sequence in 0..4 {
            put(&log, 1, sequence, 3000).await;
        }
        end(&log, 1, true).await;
        engine.shutdown_clean().await.expect("a clean stop");
    });
    live(&disk, |env| async move {
        let (_engine, log) = open(&env).await;
        // Nothing was aborted yet in the last segment, which is remembered of it.
        let known = log.aborted_transactions(0, log.log_end_offset()).await;
        assert_eq!(known.expect("known"), []);
        let first = put(&log, 2, 0, 10).await;
        end(&log, 2, false).await;
        // It rolls, is sealed, and lets its index go for another.
        for sequence in 4..8 {
            put(&log, 1, sequence, 3000).await;
        }
        end(&log, 1, true).await;
        env.sleep(Duration::from_millis(500)).await;
        let limit = ReadLimit::HighWatermark;
        log.read(0, 1000, true, limit).await.expect("readable");
        let known = log.aborted_transactions(0, log.log_end_offset()).await;
        assert_eq!(known.expect("known"), [(2, first)]);
    });
}
