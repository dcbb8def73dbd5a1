//! AddPartitionsToTxn and AddOffsetsToTxn: what a transaction reaches.

use ringlog_net::messages::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTransaction,
};
use ringlog_net::{ErrorCode, Str};

use super::TransactionCoordinator;
use super::reply::{TransactionCommands, TransactionReply};
use super::request::partition_results;
use super::state::TransactionState;
use super::transaction::{EPOCH_BUMP_VERSION, ProducerIdAndEpoch};
use crate::command::Now;

/// The first version of AddPartitionsToTxn that brokers use: several transactions, and clients that bump epochs.
const BROKER_VERSION: i16 = 4;
/// The first version whose sender knows TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 5;
/// The topic of committed offsets.
const OFFSETS_TOPIC: Str = Str::from_static("__consumer_offsets");
/// Longest topic name, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

/// The transactions of a request, one by one, whatever its version.
pub fn transactions_of(
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> Vec<AddPartitionsToTxnTransaction> {
    if version >= BROKER_VERSION {
        return request.transactions;
    }
    vec![AddPartitionsToTxnTransaction {
        transactional_id: request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        producer_epoch: request.v3_and_below_producer_epoch,
        verify_only: false,
        topics: request.v3_and_below_topics,
    }]
}

/// Whether a request's partitions are now in the transaction, or it has to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Added {
    Done,
    Wait,
}

impl TransactionCoordinator {
    pub(super) fn attempt_add_partitions(
        &mut self,
        version: i16,
        asked: &AddPartitionsToTxnTransaction,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Option<TransactionReply>, ErrorCode> {
        if asked.verify_only {
            return self.verify(version, asked).map(Some);
        }
        // Whoever sends a broker's version speaks for a client that bumps epochs.
        let client_version = if version >= BROKER_VERSION {
            EPOCH_BUMP_VERSION
        } else {
            0
        };
        let asks = ProducerIdAndEpoch {
            producer_id: asked.producer_id,
            epoch: asked.producer_epoch,
        };
        let partitions: Vec<(&Str, i32)> = asked
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| (&topic.name, *index)))
            .collect();
        let added = self.add(
            &asked.transactional_id,
            asks,
            &partitions,
            client_version,
            now,
            out,
        )?;
        let done = || {
            TransactionReply::AddPartitionsToTxn(partition_results(asked, |_, _| ErrorCode::NONE))
        };
        Ok((added == Added::Done).then(done))
    }

    pub(super) fn attempt_add_offsets(
        &mut self,
        asked: &AddOffsetsToTxnRequest,
        partition: i32,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Option<TransactionReply>, ErrorCode> {
        let asks = ProducerIdAndEpoch {
            producer_id: asked.producer_id,
            epoch: asked.producer_epoch,
        };
        // Clients that bump epochs do without this request.
        let client_version = 0;
        let partitions = [(&OFFSETS_TOPIC, partition)];
        let id = &asked.transactional_id;
        let added = self.add(id, asks, &partitions, client_version, now, out)?;
        let done = || TransactionReply::AddOffsetsToTxn(AddOffsetsToTxnResponse::default());
        Ok((added == Added::Done).then(done))
    }

    /// Puts partitions into a transaction, all or none, and begins one if need be.
    fn add(
        &mut self,
        id: &Str,
        asks: ProducerIdAndEpoch,
        partitions: &[(&Str, i32)],
        client_version: i16,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Added, ErrorCode> {
        let transaction = self
            .transactions
            .get(id)
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        // EndTxn has told the producer already who it is after this transaction.
        same_producer(asks, transaction.identity_after())?;
        if transaction.state.is_prepared() {
            return Ok(Added::Wait);
        }
        let mut all = transaction.partitions.clone();
        let mut news = false;
        for (topic, partition) in partitions {
            if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || *partition < 0 {
                return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            }
            news |= all.insert(topic, *partition);
            if all.len() > self.config.partitions_max || all.bytes() > self.config.record_bytes_max
            {
                return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
            }
        }
        if news {
            let next = transaction.added(all, client_version, now);
            self.store(id, next, out)?;
        }
        Ok(Added::Done)
    }

    /// Whether partitions are in the transaction: what a leader asks before it appends the first batch of a client that does not bump epochs.
    fn verify(
        &self,
        version: i16,
        asked: &AddPartitionsToTxnTransaction,
    ) -> Result<TransactionReply, ErrorCode> {
        let transaction = self
            .transactions
            .get(&asked.transactional_id)
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let asks = ProducerIdAndEpoch {
            producer_id: asked.producer_id,
            epoch: asked.producer_epoch,
        };
        same_producer(asks, transaction.identity())?;
        if transaction.state.is_prepared() {
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        let missing = if version >= KNOWS_ABORTABLE {
            ErrorCode::TRANSACTION_ABORTABLE
        } else {
            ErrorCode::INVALID_TXN_STATE
        };
        let ongoing = transaction.state == TransactionState::Ongoing;
        let result = partition_results(asked, |topic, partition| {
            if ongoing && transaction.partitions.contains(topic, partition) {
                ErrorCode::NONE
            } else {
                missing
            }
        });
        Ok(TransactionReply::AddPartitionsToTxn(result))
    }
}

/// Whether a request comes from the producer that has `expected`.
///
/// # Errors
/// INVALID_PRODUCER_ID_MAPPING for another id, PRODUCER_FENCED for another epoch.
pub(super) fn same_producer(
    asks: ProducerIdAndEpoch,
    expected: ProducerIdAndEpoch,
) -> Result<(), ErrorCode> {
    if asks.producer_id != expected.producer_id {
        Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING)
    } else if asks.epoch != expected.epoch {
        Err(ErrorCode::PRODUCER_FENCED)
    } else {
        Ok(())
    }
}
