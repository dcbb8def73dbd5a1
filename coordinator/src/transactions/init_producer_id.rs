//! InitProducerId: the newest producer of a transactional id, and the fencing of the one before.

use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_net::{ErrorCode, Str};

use super::TransactionCoordinator;
use super::reply::{TransactionCommands, TransactionReply};
use super::state::TransactionState;
use super::transaction::{
    EPOCH_BUMP_VERSION, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerIdAndEpoch, Recognised,
    Transaction,
};
use crate::command::Now;

impl TransactionCoordinator {
    pub(super) fn attempt_init_producer_id(
        &mut self,
        asked: &InitProducerIdRequest,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Option<TransactionReply>, ErrorCode> {
        let id = asked
            .transactional_id
            .as_ref()
            .ok_or(ErrorCode::INVALID_REQUEST)?;
        let asks = newest_known(asked)?;
        let timeout_ms = asked.transaction_timeout_ms;
        if !(1..=self.config.timeout_ms_max).contains(&timeout_ms) {
            return Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT);
        }
        let Some(transaction) = self.transactions.get(id) else {
            return self.first_producer(id, timeout_ms, now, out).map(Some);
        };
        match transaction.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                let completed = transaction.completed(now);
                refuse_fenced(&completed, asks)?;
                Ok(None)
            }
            TransactionState::Ongoing => {
                // The epoch has been used since it was given out, so only its holder may bring its transaction to an end. (Kafka lets an older producer do that,
                // and fences it afterwards.)
                if asks.is_some_and(|asks| transaction.recognise(asks) != Recognised::Current) {
                    return Err(ErrorCode::PRODUCER_FENCED);
                }
                self.decide(id, false, EPOCH_BUMP_VERSION, now, out)?;
                let open = self.transactions.get(id);
                if open.is_some_and(|open| open.state.is_prepared()) {
                    return Ok(None);
                }
                self.next_producer(id, asks, timeout_ms, now, out).map(Some)
            }
            _ => self.next_producer(id, asks, timeout_ms, now, out).map(Some),
        }
    }

    /// The first producer of a transactional id. It may give an id and epoch: those of an id that expired meanwhile.
    fn first_producer(
        &mut self,
        id: &Str,
        timeout_ms: i32,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<TransactionReply, ErrorCode> {
        if i16::try_from(id.len()).is_err() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if self.transactions.len() >= self.config.transactional_ids_max {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        let transaction = Transaction::new(self.new_producer_id()?, timeout_ms, now);
        let reply = initialised(&transaction);
        self.store(id, transaction, out)?;
        Ok(reply)
    }

    /// The next producer, or the next epoch of the same, of an id without a transaction.
    fn next_producer(
        &mut self,
        id: &Str,
        asks: Option<ProducerIdAndEpoch>,
        timeout_ms: i32,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<TransactionReply, ErrorCode> {
        let current = self
            .transactions
            .get(id)
            .cloned()
            .ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let new_id = || self.new_producer_id();
        let transaction = current.initialised(asks, timeout_ms, now, new_id)?;
        let reply = initialised(&transaction);
        self.store(id, transaction, out)?;
        Ok(reply)
    }
}

/// The id and epoch that a producer says it has (KIP-360), if it says so.
fn newest_known(asked: &InitProducerIdRequest) -> Result<Option<ProducerIdAndEpoch>, ErrorCode> {
    match (asked.producer_id, asked.producer_epoch) {
        (NO_PRODUCER_ID, NO_PRODUCER_EPOCH) => Ok(None),
        (NO_PRODUCER_ID, _) | (_, NO_PRODUCER_EPOCH) => Err(ErrorCode::INVALID_REQUEST),
        (producer_id, epoch) => Ok(Some(ProducerIdAndEpoch { producer_id, epoch })),
    }
}

/// An older producer need not wait to be told that it is fenced.
fn refuse_fenced(
    completed: &Transaction,
    asks: Option<ProducerIdAndEpoch>,
) -> Result<(), ErrorCode> {
    match asks.map(|asks| completed.recognise(asks)) {
        Some(Recognised::Fenced) => Err(ErrorCode::PRODUCER_FENCED),
        _ => Ok(()),
    }
}

fn initialised(transaction: &Transaction) -> TransactionReply {
    TransactionReply::InitProducerId(InitProducerIdResponse {
        error_code: ErrorCode::NONE,
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        ..Default::default()
    })
}
