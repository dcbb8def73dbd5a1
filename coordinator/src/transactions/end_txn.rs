//! EndTxn, and deciding a transaction in general.

use ringlog_net::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use ringlog_net::{ErrorCode, Str};

use super::TransactionCoordinator;
use super::add_partitions::same_producer;
use super::reply::{TransactionCommands, TransactionReply};
use super::state::TransactionState;
use super::transaction::{
    EPOCH_BUMP_VERSION, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerIdAndEpoch, Transaction,
};
use crate::command::Now;

/// The first version of clients that bump the epoch with every transaction.
const BUMPS_EPOCH: i16 = 5;

/// What an EndTxn comes to.
enum Verdict {
    /// Decide the transaction.
    Decide,
    /// It has been done already: say so again.
    Repeat,
    /// Wait for the transaction to end, then look again.
    Wait,
}

impl TransactionCoordinator {
    pub(super) fn attempt_end_txn(
        &mut self,
        version: i16,
        asked: &EndTxnRequest,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Option<TransactionReply>, ErrorCode> {
        let id = &asked.transactional_id;
        let transaction = self
            .transactions
            .get(id)
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let asks = ProducerIdAndEpoch {
            producer_id: asked.producer_id,
            epoch: asked.producer_epoch,
        };
        let bumps = version >= BUMPS_EPOCH;
        let verdict = if bumps {
            bumping_verdict(transaction, asks, asked.committed)?
        } else {
            plain_verdict(transaction, asks, asked.committed)?
        };
        let identity = match verdict {
            Verdict::Wait => return Ok(None),
            Verdict::Repeat => transaction.identity(),
            Verdict::Decide => {
                let client_version = if bumps { EPOCH_BUMP_VERSION } else { 0 };
                self.decide(id, asked.committed, client_version, now, out)?
            }
        };
        let shown = if bumps {
            identity
        } else {
            ProducerIdAndEpoch {
                producer_id: NO_PRODUCER_ID,
                epoch: NO_PRODUCER_EPOCH,
            }
        };
        Ok(Some(TransactionReply::EndTxn(EndTxnResponse {
            error_code: ErrorCode::NONE,
            producer_id: shown.producer_id,
            producer_epoch: shown.epoch,
            ..Default::default()
        })))
    }

    /// Decides a transaction, and asks for its markers. Without partitions there is nobody to tell, and it is complete at once. Returns the producer's id and epoch
    /// from then on.
    pub(super) fn decide(
        &mut self,
        id: &Str,
        committed: bool,
        client_version: i16,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let transaction = self
            .transactions
            .get(id)
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let uses_id = client_version >= EPOCH_BUMP_VERSION && transaction.is_exhausted();
        let next_producer_id = if uses_id {
            *self
                .spare_producer_ids
                .last()
                .ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)?
        } else {
            NO_PRODUCER_ID
        };
        let prepared = transaction.prepared(committed, client_version, next_producer_id, now);
        let identity = prepared.identity_after();
        if prepared.partitions.is_empty() {
            self.store(id, prepared.completed(now), out)?;
        } else {
            self.store(id, prepared, out)?;
            self.ask_for_markers(id, out);
        }
        if uses_id {
            self.spare_producer_ids.pop();
        }
        Ok(identity)
    }
}

/// EndTxn of a client that bumps epochs. It need not know whether a transaction has begun, so it may abort one that has not; and a retry shows by the epoch,
/// which is that of the transaction that it ended.
fn bumping_verdict(
    transaction: &Transaction,
    asks: ProducerIdAndEpoch,
    committed: bool,
) -> Result<Verdict, ErrorCode> {
    if transaction.is_end_retry(asks) {
        return if transaction.state.decision() != Some(committed) {
            Err(ErrorCode::INVALID_TXN_STATE)
        } else if transaction.state.is_prepared() {
            Ok(Verdict::Wait)
        } else {
            Ok(Verdict::Repeat)
        };
    }
    same_producer(asks, transaction.identity_after())?;
    match transaction.state {
        TransactionState::Ongoing => Ok(Verdict::Decide),
        TransactionState::PrepareCommit | TransactionState::PrepareAbort if !committed => {
            Ok(Verdict::Wait)
        }
        _ if !committed => Ok(Verdict::Decide),
        _ => Err(ErrorCode::INVALID_TXN_STATE),
    }
}

/// EndTxn of a client that does not bump epochs. Repeating the last decision counts as a retry, since nothing tells the two apart.
fn plain_verdict(
    transaction: &Transaction,
    asks: ProducerIdAndEpoch,
    committed: bool,
) -> Result<Verdict, ErrorCode> {
    same_producer(asks, transaction.identity_after())?;
    match transaction.state {
        TransactionState::Ongoing => Ok(Verdict::Decide),
        state if state.decision() != Some(committed) => Err(ErrorCode::INVALID_TXN_STATE),
        state if state.is_prepared() => Ok(Verdict::Wait),
        _ => Ok(Verdict::Repeat),
    }
}
