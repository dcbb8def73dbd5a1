//! Transactions in the workload and in the model: several producers write to a log at once, and coordinators end what they began. What the log says of them, the last stable offset
//! and the aborted transactions, must follow from the batches that it holds, before and after every crash, truncation and deletion.
//!
//! The model reads producer, epoch and the markers' type from the stored bytes by their position, not with the engine's parser.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_engine::batch::{Attributes, BatchBuilder, BatchHeader, EndTransactionMarker};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, ReadLimit};
use ringlog_engine::producer_state::{ProducerBatch, SequenceError};
use ringlog_engine::sim::SimEnvironment;

use crate::model::{ModelBatch, ModelLog};
use crate::workload::{Shared, SimLog, model_batch, rules};

const PRODUCERS: u64 = 3;
const COORDINATOR_EPOCH: i32 = 5;

/// Whether the producers of a log write in transactions.
pub fn is_transactional(number: usize) -> bool {
    number % 4 == 3
}

/// Which version of transactions a seed's producers speak: with 2 the epoch rises with each.
fn transaction_version(seed: u64) -> i8 {
    if seed.is_multiple_of(2) { 2 } else { 1 }
}

/// A transaction as the batches of a log tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transaction {
    producer_id: i64,
    first_offset: i64,
    /// Offset of its last record.
    last_record: i64,
    /// Its marker's offset, and whether that commits it.
    marker: Option<(i64, bool)>,
}

/// A producer as the batches of a log tell it.
#[derive(Clone, Copy, Debug, Default)]
struct Producer {
    epoch: i16,
    next_sequence: i32,
    /// Offset of its last record.
    last_record: i64,
    /// Its open transaction's place in the list.
    open: Option<usize>,
}

fn field<const N: usize>(content: &[u8], at: usize) -> [u8; N] {
    // Content begins with a batch's seventeenth byte.
    content[at - 16..at - 16 + N].try_into().expect("inside")
}

/// All transactions in the order in which they began, and the producers.
fn told_by(batches: &[ModelBatch]) -> (Vec<Transaction>, BTreeMap<i64, Producer>) {
    let mut transactions: Vec<Transaction> = Vec::new();
    let mut producers: BTreeMap<i64, Producer> = BTreeMap::new();
    for batch in batches {
        let producer_id = i64::from_be_bytes(field(&batch.content, 43));
        if producer_id < 0 {
            continue;
        }
        let attributes = i16::from_be_bytes(field(&batch.content, 21));
        let epoch = i16::from_be_bytes(field(&batch.content, 51));
        let producer = producers.entry(producer_id).or_default();
        if epoch != producer.epoch {
            (producer.epoch, producer.next_sequence) = (epoch, 0);
        }
        if attributes & 0x20 != 0 {
            // Length, attributes, timestamp, offset and the key's length take a byte each, and the key's version two.
            let committed = field::<2>(&batch.content, 61 + 5 + 2) == [0, 1];
            if let Some(open) = producer.open.take() {
                transactions[open].marker = Some((batch.base_offset, committed));
            }
            continue;
        }
        let records = (batch.last_offset - batch.base_offset) as i32 + 1;
        producer.next_sequence = i32::from_be_bytes(field(&batch.content, 53)) + records;
        producer.last_record = batch.last_offset;
        if attributes & 0x10 == 0 {
            continue;
        }
        let open = *producer.open.get_or_insert_with(|| {
            transactions.push(Transaction {
                producer_id,
                first_offset: batch.base_offset,
                last_record: batch.last_offset,
                marker: None,
            });
            transactions.len() - 1
        });
        transactions[open].last_record = batch.last_offset;
    }
    (transactions, producers)
}

/// Compares the last stable offset with what the batches say. Of what began before the log's start the log may know less.
pub fn check_stable(log: &SimLog, expected: &ModelLog, context: &str) {
    let (start, high_watermark) = (log.log_start_offset(), log.high_watermark());
    let (transactions, _) = told_by(&expected.batches);
    let unstable = transactions.iter().filter(|transaction| {
        transaction
            .marker
            .is_none_or(|(marker, _)| marker >= high_watermark)
    });
    let firsts: Vec<i64> = unstable
        .map(|transaction| transaction.first_offset)
        .collect();
    let known = firsts.iter().copied().filter(|first| *first >= start);
    let most = known.min().unwrap_or(i64::MAX).min(high_watermark);
    let least = if firsts.iter().any(|first| *first < start) {
        start.min(high_watermark)
    } else {
        most
    };
    let stable = log.last_stable_offset();
    assert!(
        (least..=most).contains(&stable),
        "{context}: the last stable offset is {stable}, not in {least}..={most}; high watermark {high_watermark}, start {start}"
    );
}

/// Compares the aborted transactions of a range with what the batches say, and what may be read with the last stable offset.
pub async fn check_aborted(env: &SimEnvironment, log: &SimLog, expected: &ModelLog, context: &str) {
    let (start, stable) = (log.log_start_offset(), log.last_stable_offset());
    if start >= stable {
        return;
    }
    let (transactions, _) = told_by(&expected.batches);
    let random = |low: i64, high: i64| env.world().random_between(low as u64, high as u64) as i64;
    let (from, upto) = match env.world().random_between(0, 2) {
        0 => (start, stable),
        _ => {
            let from = random(start, stable - 1);
            (from, random(from + 1, stable))
        }
    };
    let found = log
        .aborted_transactions(from, upto)
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let aborted = transactions.iter().filter_map(|transaction| {
        let (marker, committed) = transaction.marker?;
        let overlaps = marker >= from && transaction.first_offset < upto;
        (!committed && overlaps).then_some((transaction, marker))
    });
    let aborted: Vec<(&Transaction, i64)> = aborted.collect();
    let is = |(producer_id, first): (i64, i64), (transaction, marker): &(&Transaction, i64)| {
        let same = first == transaction.first_offset;
        let cut = transaction.first_offset < start
            && (transaction.first_offset..*marker).contains(&first);
        producer_id == transaction.producer_id && (same || cut)
    };
    for pair in &found {
        assert!(
            aborted.iter().any(|one| is(*pair, one)),
            "{context}: {pair:?} was not aborted in {from}..{upto} of {aborted:?}"
        );
    }
    for one in &aborted {
        // Of a transaction that began before the log's start no more need be known than its records from there on.
        let (transaction, marker) = one;
        let has_records = || {
            expected.batches.iter().any(|batch| {
                i64::from_be_bytes(field(&batch.content, 43)) == transaction.producer_id
                    && (batch.last_offset >= from && batch.base_offset < upto)
                    && (transaction.first_offset..*marker).contains(&batch.base_offset)
            })
        };
        let needed = transaction.last_record >= start
            && (transaction.first_offset >= start || has_records());
        assert!(
            !needed || found.iter().any(|pair| is(*pair, one)),
            "{context}: {one:?} is missing in {from}..{upto}: {found:?}, start {start}"
        );
    }
    let read = log
        .read(from, 20_000, true, ReadLimit::LastStableOffset)
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(
        !read.is_empty() && read.next_offset <= read.last_stable_offset,
        "{context}: read {from} to {} of {}",
        read.next_offset,
        read.last_stable_offset
    );
}

/// A few batches and markers, each noted as it gets its place, acknowledged together.
pub async fn transact_some(env: &SimEnvironment, log: &SimLog, model: &Shared, number: usize) {
    let count = env.world().random_between(1, 12);
    let mut ends = Vec::new();
    for _ in 0..count {
        let (seed, (transactions, producers)) = {
            let model = model.borrow();
            (model.seed, told_by(&model.logs[&number].batches))
        };
        let context = format!("seed {seed}, log {number}");
        let producer_id = (number * 10) as i64 + env.world().random_between(1, PRODUCERS) as i64;
        let mut producer = producers.get(&producer_id).copied().unwrap_or_default();
        if producer.open.is_none() && producer.last_record < log.log_start_offset() {
            // A truncation may have lost what the records before the log's start told of sequences: a new epoch needs no old one.
            (producer.epoch, producer.next_sequence) = (producer.epoch + 1, 0);
        }
        let open = producer.open.map(|open| transactions[open]);
        // What began before the log's start need not be known any more, and so not its sequence.
        let lost = open.is_some_and(|open| open.first_offset < log.log_start_offset());
        let batch = if open.is_some() && (lost || env.world().chance(0.3)) {
            end(env, log, (seed, lost), producer_id, producer, &context).await
        } else {
            send(env, log, seed, producer_id, producer, &context).await
        };
        let Some((base_offset, bytes)) = batch else {
            continue;
        };
        let mut model = model.borrow_mut();
        let expected = model.logs.get_mut(&number).expect("known");
        assert_eq!(
            base_offset,
            expected.end(),
            "{context}: offsets follow each other"
        );
        let added = model_batch(base_offset, &bytes);
        ends.push(added.last_offset + 1);
        expected.batches.push(added);
        check_stable(log, expected, &context);
    }
    let flushed = ends.into_iter().map(|end| async move {
        log.flushed(end).await.expect("flushed");
        let mut model = model.borrow_mut();
        let context = format!("seed {}, log {number}", model.seed);
        let expected = model.logs.get_mut(&number).expect("known");
        expected.acknowledge(end);
        check_stable(log, expected, &context);
    });
    join_all(flushed).await;
}

async fn send(
    env: &SimEnvironment,
    log: &SimLog,
    seed: u64,
    producer_id: i64,
    producer: Producer,
    context: &str,
) -> Option<(i64, Bytes)> {
    let size = env.world().random_between(1, 3000) as usize;
    let fill = env.random() as u8;
    let mut builder = BatchBuilder::new()
        .producer(producer_id, producer.epoch, producer.next_sequence)
        .attributes(Attributes::default().with_transactional(true));
    for _ in 0..env.world().random_between(1, 3) {
        builder = builder.record(1_704_067_200_000, None, Some(&vec![fill; size]));
    }
    let bytes = Bytes::from(builder.build().expect("a batch"));
    let header = BatchHeader::parse(&bytes).expect("a batch");
    let batch = ProducerBatch::of(&header).expect("with a producer");
    let mut rules = rules();
    rules.transactional_allowed = true;
    if producer.open.is_none() && env.world().chance(0.1) {
        let unverified = log.append(bytes.clone(), &rules, 3).await;
        assert!(
            matches!(
                unverified,
                Err(AppendError::Sequence(
                    SequenceError::InvalidTransactionState { .. }
                ))
            ),
            "{context}: {unverified:?} without a verification"
        );
    }
    let bumps = transaction_version(seed) == 2;
    let guard = log
        .begin_verification(&batch, bumps)
        .expect("an epoch that is current");
    assert!(
        guard.is_some() || producer.open.is_some(),
        "{context}: producer {producer_id} has a transaction open that the batches do not tell of"
    );
    let appended = log.append_verified(bytes.clone(), &rules, 3, guard).await;
    let appended = appended.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(
        !appended.duplicate,
        "{context}: a new batch is no duplicate"
    );
    Some((appended.base_offset, bytes))
}

async fn end(
    env: &SimEnvironment,
    log: &SimLog,
    (seed, lost): (u64, bool),
    producer_id: i64,
    producer: Producer,
    context: &str,
) -> Option<(i64, Bytes)> {
    let version = transaction_version(seed);
    let marker = EndTransactionMarker {
        producer_id,
        producer_epoch: producer.epoch + i16::from(version == 2),
        coordinator_epoch: COORDINATOR_EPOCH,
        committed: env.world().chance(0.5),
        timestamp: 1_704_067_200_000,
    };
    // The epoch is known only as long as the log has something of the transaction.
    if version == 2 && !lost && env.world().chance(0.1) {
        let late = EndTransactionMarker {
            producer_epoch: producer.epoch,
            ..marker
        };
        let refused = log.append_marker(&late, 3, version).await;
        assert!(
            matches!(
                refused,
                Err(AppendError::Sequence(SequenceError::InvalidEpoch { .. }))
            ),
            "{context}: {refused:?} of a marker of the transaction's own epoch"
        );
    }
    let appended = log.append_marker(&marker, 3, version).await;
    let appended = appended.unwrap_or_else(|error| panic!("{context}: {error}"));
    Some((
        appended.base_offset,
        Bytes::from(marker.build().expect("a batch")),
    ))
}
