//! Transactions: the state of one partition of `__transaction_state`.
//!
//! [`TransactionCoordinator`] keeps, for every transactional id of its partition, which producer is the newest and how its transaction stands (KIP-98, 360,
//! 890). What it decides is a record; a decision to commit or abort is carried out by markers in the transaction's partitions, which whoever drives the
//! coordinator (the *host*) writes:
//!
//! 1. An event (a request, a timeout, a report) changes the state at once and fills [`TransactionCommands`]: records, answers, [`MarkersToWrite`]. A request
//!    is answered in the event that takes it, or in a later one: every token is answered exactly once.
//! 2. The host appends the records of an event as one atomic batch, in the order of the events. When they and all before are durable, the answers go out and
//!    the markers may be written. If an append fails, the coordinator is ahead of its log: [`TransactionCoordinator::resign`], and load anew.
//! 3. The host writes the markers, again and again until each partition has its own, and reports with [`TransactionCoordinator::on_markers_written`]. A partition is done when
//!    its marker is durable, when it can have none (the topic is gone; UNSUPPORTED_FOR_MESSAGE_FORMAT), or when it is past the transaction already
//!    (INVALID_PRODUCER_EPOCH, which Kafka leaves prepared until the next change of coordinator). A partition that answers
//!    TRANSACTION_COORDINATOR_FENCED has heard from a newer coordinator: stop, this one is about to resign. For one producer id and partition no two marker
//!    writes may be under way at once: a late one would end the next transaction of a client that does not bump epochs.
//! 4. With the last report the transaction is complete, which is a record again.
//!
//! A new leader makes a coordinator, [`TransactionCoordinator::replay`]s the records from the log's start, then calls [`TransactionCoordinator::loaded`], which
//! hands out the markers of every transaction found decided. Before that requests are refused with COORDINATOR_LOAD_IN_PROGRESS, after
//! [`TransactionCoordinator::resign`] with NOT_COORDINATOR.
//!
//! **Producer ids.** [`TransactionCoordinator::init_producer_id`] is handed an id that nobody ever had. What is left over is kept for transactions that use up their
//! last epoch, where no id comes with the request; [`TransactionCoordinator::producer_ids_wanted`] says how many more it takes, and
//! [`TransactionCoordinator::add_producer_id`] gives one. Kept ids are lost with the coordinator.
//!
//! **Held requests.** Kafka answers EndTxn when the decision is durable and refuses what the producer asks next with CONCURRENT_TRANSACTIONS until the markers are
//! written, so clients back off and ask again. Here such a request of the *same* producer is held, a few per id and for a short time, and answered in the event
//! that completes the transaction; so is the InitProducerId for whose sake a transaction is aborted. A request that would be refused then is refused at once.
//!
//! **Where this is stricter than Kafka**, besides: InitProducerId of a fenced producer (KIP-360) does not abort the transaction of the one that fenced it;
//! EndTxn takes an older epoch for a retry only if that epoch's transaction was the last to end, and not merely because it is one below;
//! the epoch before is known also after a change of coordinator; running out of epochs in a retry is no server error. The server's own
//! aborts always bump the epoch, since `transaction.version` is finalised at 2.

mod add_partitions;
mod config;
mod end_txn;
mod held;
mod init_producer_id;
mod inspect;
mod log;
mod markers;
mod partitions;
mod reply;
mod request;
mod state;
mod timeouts;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ringlog_net::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ringlog_net::messages::add_partitions_to_txn::AddPartitionsToTxnTransaction;
use ringlog_net::messages::end_txn::EndTxnRequest;
use ringlog_net::messages::init_producer_id::InitProducerIdRequest;
use ringlog_net::{ErrorCode, Str};

pub use self::add_partitions::transactions_of;
pub use self::config::TransactionConfig;
pub use self::inspect::TransactionFilter;
pub use self::log::UnreadableRecord;
pub use self::reply::{Decision, MarkersToWrite, TransactionCommands, TransactionReply};
pub use self::state::TransactionState;
pub use self::transaction::ProducerIdAndEpoch;

use self::held::Held;
use self::request::{Body, Request};
use self::transaction::Transaction;
use crate::command::{Caller, Now, Token};
use crate::record::Record;

/// How many producer ids are kept for later at most.
const SPARE_PRODUCER_IDS_MAX: usize = 64;

/// The state of one partition of `__transaction_state`; see the module.
#[derive(Clone, Debug)]
pub struct TransactionCoordinator {
    config: TransactionConfig,
    phase: Phase,
    coordinator_epoch: i32,
    transactions: BTreeMap<Str, Transaction>,
    /// When transactions are to be aborted, or ended.
    deadlines: BTreeSet<(u64, Str)>,
    /// The open decision of each prepared transaction.
    decisions: BTreeMap<Str, Decision>,
    decisions_made: u64,
    /// Requests that wait for their id's transaction to end, oldest first.
    held: BTreeMap<Str, VecDeque<Held>>,
    /// When they have waited long enough.
    held_deadlines: BTreeSet<(u64, Token, Str)>,
    spare_producer_ids: Vec<i64>,
    /// Ids whose next step takes a new producer id.
    exhausted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Active,
    Resigned,
}

/// Requests, and life.
impl TransactionCoordinator {
    /// A coordinator of an empty partition, to be loaded. `coordinator_epoch` is the leader epoch in which it leads the partition.
    pub fn new(config: TransactionConfig, coordinator_epoch: i32) -> Self {
        Self {
            config,
            phase: Phase::Loading,
            coordinator_epoch,
            transactions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            decisions: BTreeMap::new(),
            decisions_made: 0,
            held: BTreeMap::new(),
            held_deadlines: BTreeSet::new(),
            spare_producer_ids: Vec::new(),
            exhausted: 0,
        }
    }

    /// Takes in a record of the partition, oldest first. Only before [`TransactionCoordinator::loaded`].
    ///
    /// # Errors
    /// [`UnreadableRecord`]: to be passed over if it [is foreign](UnreadableRecord::is_foreign); otherwise the partition must not be served.
    pub fn replay(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), UnreadableRecord> {
        let id = log::read_key(key)?;
        match value {
            None => self.transactions.remove(&id),
            Some(value) => self.transactions.insert(id, log::read_value(value)?),
        };
        Ok(())
    }

    /// Gives up: the partition is led elsewhere, or is to be loaded anew. Whoever waits is told NOT_COORDINATOR, as is everyone after.
    pub fn resign(&mut self, out: &mut TransactionCommands) {
        for held in std::mem::take(&mut self.held).into_values().flatten() {
            let request = held.request;
            let reply = request.refused(ErrorCode::NOT_COORDINATOR);
            out.commands.reply(request.token, reply);
        }
        let (config, coordinator_epoch) = (self.config.clone(), self.coordinator_epoch);
        *self = Self::new(config, coordinator_epoch);
        self.phase = Phase::Resigned;
    }

    /// A producer's id and epoch (KIP-98), or its next epoch (KIP-360). An ongoing transaction is aborted first. Answered by
    /// [`TransactionReply::InitProducerId`]. `fresh_producer_id` is one that nobody ever had, durably reserved.
    ///
    /// A request without a transactional id needs no coordinator and is the host's to answer; here it is an INVALID_REQUEST.
    pub fn init_producer_id(
        &mut self,
        caller: &Caller,
        request: InitProducerIdRequest,
        fresh_producer_id: i64,
        out: &mut TransactionCommands,
    ) {
        self.add_producer_id(fresh_producer_id);
        self.take(caller, Body::InitProducerId(request), out);
    }

    /// Adds partitions to a transaction, or with `verify_only` looks whether they are in it. Of a request with several transactions (version 4 on) each comes
    /// alone, with a token of its own: see [`transactions_of`]. Answered by [`TransactionReply::AddPartitionsToTxn`]. That the partitions exist and that the
    /// client may write to them has been checked.
    pub fn add_partitions(
        &mut self,
        caller: &Caller,
        transaction: AddPartitionsToTxnTransaction,
        out: &mut TransactionCommands,
    ) {
        self.take(caller, Body::AddPartitions(transaction), out);
    }

    /// Adds a group's offsets to a transaction: `partition` is that of `__consumer_offsets` that holds the group. Answered by
    /// [`TransactionReply::AddOffsetsToTxn`].
    pub fn add_offsets(
        &mut self,
        caller: &Caller,
        request: AddOffsetsToTxnRequest,
        partition: i32,
        out: &mut TransactionCommands,
    ) {
        self.take(caller, Body::AddOffsets(request, partition), out);
    }

    /// Commits or aborts. Answered by [`TransactionReply::EndTxn`] once the decision is durable, before it is carried out.
    pub fn end_txn(
        &mut self,
        caller: &Caller,
        request: EndTxnRequest,
        out: &mut TransactionCommands,
    ) {
        self.take(caller, Body::EndTxn(request), out);
    }

    /// Keeps a producer id that nobody ever had for a transaction that uses up its last epoch.
    pub fn add_producer_id(&mut self, producer_id: i64) {
        if self.spare_producer_ids.len() < SPARE_PRODUCER_IDS_MAX {
            self.spare_producer_ids.push(producer_id);
        }
    }

    /// How many producer ids more it takes for the transactions that have used up their last epoch; while they are missing, those are refused with
    /// COORDINATOR_LOAD_IN_PROGRESS, as in Kafka. Look after every event; ids already on their way count.
    pub fn producer_ids_wanted(&self) -> usize {
        self.exhausted
            .min(SPARE_PRODUCER_IDS_MAX)
            .saturating_sub(self.spare_producer_ids.len())
    }

    /// The next time to call [`TransactionCoordinator::on_timeout`], monotonic.
    pub fn next_deadline(&self) -> Option<u64> {
        let transaction = self.deadlines.first().map(|(deadline, _)| *deadline);
        let held = self
            .held_deadlines
            .first()
            .map(|(deadline, _, _)| *deadline);
        transaction.into_iter().chain(held).min()
    }

    /// How many transactional ids there are.
    pub fn transactional_ids(&self) -> usize {
        self.transactions.len()
    }

    /// How many requests wait for a transaction to end.
    pub fn held_requests(&self) -> usize {
        self.held_deadlines.len()
    }
}

/// What the events have in common.
impl TransactionCoordinator {
    /// A request has come: answers or holds it.
    fn take(&mut self, caller: &Caller, body: Body, out: &mut TransactionCommands) {
        let request = Request {
            token: caller.token,
            version: caller.version,
            body,
        };
        let refusal = match self.phase {
            Phase::Loading => Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Active => None,
            Phase::Resigned => Some(ErrorCode::NOT_COORDINATOR),
        };
        let answer = match refusal {
            Some(error) => Err(error),
            None => self.attempt(&request, caller.now, out),
        };
        match answer {
            Ok(Some(reply)) => out.commands.reply(request.token, reply),
            Ok(None) => self.hold(request, caller.now, out),
            Err(error) => out.commands.reply(request.token, request.refused(error)),
        }
    }

    /// Does what a request asks. No answer: it has to wait for the id's transaction to end.
    fn attempt(
        &mut self,
        request: &Request,
        now: Now,
        out: &mut TransactionCommands,
    ) -> Result<Option<TransactionReply>, ErrorCode> {
        if request.transactional_id().is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        match &request.body {
            Body::InitProducerId(asked) => self.attempt_init_producer_id(asked, now, out),
            Body::AddPartitions(asked) => {
                self.attempt_add_partitions(request.version, asked, now, out)
            }
            Body::AddOffsets(asked, partition) => {
                self.attempt_add_offsets(asked, *partition, now, out)
            }
            Body::EndTxn(asked) => self.attempt_end_txn(request.version, asked, now, out),
        }
    }

    /// Writes an id's new state down and makes it the current one.
    ///
    /// # Errors
    /// UNKNOWN_SERVER_ERROR if it has no form as a record; then nothing has changed.
    fn store(
        &mut self,
        id: &Str,
        transaction: Transaction,
        out: &mut TransactionCommands,
    ) -> Result<(), ErrorCode> {
        let unwritable = |_| ErrorCode::UNKNOWN_SERVER_ERROR;
        let key = log::key(id).map_err(unwritable)?;
        let value = log::value(&transaction).map_err(unwritable)?;
        append(key, Some(value), out);
        self.replace(id, Some(transaction));
        Ok(())
    }

    /// Makes a state the current one, with everything that is derived from it.
    fn replace(&mut self, id: &Str, transaction: Option<Transaction>) {
        // The id outlives the request that brought it.
        let id = match self.transactions.get_key_value(id) {
            Some((known, _)) => known.clone(),
            None => id.detached(),
        };
        if let Some(new) = &transaction {
            self.exhausted += usize::from(new.wants_producer_id());
            self.deadlines
                .extend(new.deadline_ms.map(|deadline| (deadline, id.clone())));
        }
        let old = match &transaction {
            Some(new) => self.transactions.insert(id.clone(), new.clone()),
            None => self.transactions.remove(&id),
        };
        if let Some(old) = old {
            self.exhausted -= usize::from(old.wants_producer_id());
            let still = transaction.and_then(|new| new.deadline_ms);
            if let Some(deadline) = old.deadline_ms.filter(|_| old.deadline_ms != still) {
                self.deadlines.remove(&(deadline, id));
            }
        }
    }

    /// A producer id that nobody ever had.
    fn new_producer_id(&mut self) -> Result<i64, ErrorCode> {
        self.spare_producer_ids
            .pop()
            .ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
    }
}

/// Appends a record. Of several for one key in one event only the last is kept: the event is one atomic batch, and nobody can see between its records.
fn append(key: Bytes, value: Option<Bytes>, out: &mut TransactionCommands) {
    let records = &mut out.commands.records;
    match records.iter_mut().rev().find(|record| record.key == key) {
        Some(record) => record.value = value,
        None => records.push(Record { key, value }),
    }
}

/// What an event's records come to, in bytes.
fn record_bytes(out: &TransactionCommands) -> usize {
    let of = |record: &Record| record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
    out.commands.records.iter().map(of).sum()
}
