//! One transactional id: its producer, its transaction, and the steps between its states. Pure; every step gives a new value, whose record is then written.

use ringlog_net::ErrorCode;

use super::partitions::Partitions;
use super::state::TransactionState;
use crate::command::Now;

/// No producer id, in requests, responses and records.
pub(super) const NO_PRODUCER_ID: i64 = -1;
/// No producer epoch, likewise.
pub(super) const NO_PRODUCER_EPOCH: i16 = -1;
/// The last epoch that a producer may have. The one above is kept back so that this producer can still be fenced.
pub(super) const LAST_EPOCH: i16 = i16::MAX - 1;
/// The transaction version (KIP-890) of clients that take part in bumping the epoch with every transaction.
pub(super) const EPOCH_BUMP_VERSION: i16 = 2;
/// Transactions with this timeout never time out (KIP-939).
const NO_TIMEOUT_MS: i32 = i32::MAX;

/// What a producer is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerIdAndEpoch {
    /// The producer id.
    pub producer_id: i64,
    /// The epoch.
    pub epoch: i16,
}

/// Whose word a request is that gives an id and epoch with InitProducerId (KIP-360).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recognised {
    /// The newest producer's.
    Current,
    /// The newest producer's, which did not hear the answer to its last step.
    Retry,
    /// An older one's.
    Fenced,
}

/// The state of one transactional id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transaction {
    pub producer_id: i64,
    /// The id before the last step; differs from `producer_id` only right after the id was changed.
    pub previous_producer_id: i64,
    /// While prepared: the id to go on with when the epochs of this one are used up.
    pub next_producer_id: i64,
    pub producer_epoch: i16,
    /// The epoch before, if its owner may ask again for what it has been answered.
    pub last_producer_epoch: i16,
    pub timeout_ms: i32,
    pub state: TransactionState,
    /// While ongoing, all; while prepared, those without a marker.
    pub partitions: Partitions,
    /// When the transaction began, milliseconds since the epoch; −1 before the first.
    pub start_ms: i64,
    /// When the id last did something, milliseconds since the epoch.
    pub update_ms: i64,
    /// The transaction version of the client that made the last step.
    pub client_version: i16,
    /// When to abort it, or to end it if no marker is due. Monotonic; not in the record.
    pub deadline_ms: Option<u64>,
    /// `update_ms` on the monotonic clock, if that was in this coordinator's life; not in the record.
    pub updated_monotonic_ms: Option<u64>,
}

impl Transaction {
    /// A new id.
    pub fn new(producer_id: i64, timeout_ms: i32, now: Now) -> Transaction {
        Transaction {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: 0,
            last_producer_epoch: NO_PRODUCER_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Partitions::default(),
            start_ms: -1,
            update_ms: now.wall_ms,
            client_version: 0,
            deadline_ms: None,
            updated_monotonic_ms: Some(now.monotonic_ms),
        }
    }

    /// Id and epoch.
    pub fn identity(&self) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch {
            producer_id: self.producer_id,
            epoch: self.producer_epoch,
        }
    }

    /// Whether the producer id has no epoch left for another producer.
    pub fn is_exhausted(&self) -> bool {
        self.producer_epoch >= LAST_EPOCH
    }

    /// Whether to go on it takes a producer id that it has not been given yet.
    pub fn wants_producer_id(&self) -> bool {
        self.is_exhausted() && self.next_producer_id == NO_PRODUCER_ID
    }

    /// Id and epoch when the prepared transaction has ended: what EndTxn answers from version 5 on, before it has.
    pub fn identity_after(&self) -> ProducerIdAndEpoch {
        if self.state.is_prepared() && self.next_producer_id != NO_PRODUCER_ID {
            ProducerIdAndEpoch {
                producer_id: self.next_producer_id,
                epoch: 0,
            }
        } else {
            self.identity()
        }
    }

    /// Whether `asks` ended the last transaction with EndTxn of version 5 or above, and asks again: it knows the epoch that its transaction had.
    pub fn is_end_retry(&self, asks: ProducerIdAndEpoch) -> bool {
        let bumped = self.client_version >= EPOCH_BUMP_VERSION
            && self.state.decision().is_some()
            && self.last_producer_epoch == asks.epoch
            && asks.epoch >= 0;
        bumped && asks.producer_id == self.owner_of_last_epoch()
    }

    /// Whose the id and epoch is that an InitProducerId gives.
    pub fn recognise(&self, asks: ProducerIdAndEpoch) -> Recognised {
        if asks == self.identity() {
            Recognised::Current
        } else if asks.epoch >= 0
            && asks.epoch == self.last_producer_epoch
            && asks.producer_id == self.owner_of_last_epoch()
        {
            Recognised::Retry
        } else {
            Recognised::Fenced
        }
    }

    /// The producer id that `last_producer_epoch` belongs to: the one before, if the id has just been changed.
    fn owner_of_last_epoch(&self) -> i64 {
        let changed = self.producer_epoch == 0 && self.previous_producer_id != NO_PRODUCER_ID;
        if changed {
            self.previous_producer_id
        } else {
            self.producer_id
        }
    }

    /// The common part of every step.
    fn step(&self, state: TransactionState, now: Now) -> Transaction {
        Transaction {
            previous_producer_id: self.producer_id,
            state,
            update_ms: now.wall_ms,
            deadline_ms: None,
            updated_monotonic_ms: Some(now.monotonic_ms),
            ..self.clone()
        }
    }

    /// InitProducerId in a state without a transaction: the next epoch, or a new id when the epochs are used up.
    ///
    /// # Errors
    /// PRODUCER_FENCED to an older producer. Whatever `new_id` refuses with.
    pub fn initialised(
        &self,
        asks: Option<ProducerIdAndEpoch>,
        timeout_ms: i32,
        now: Now,
        new_id: impl FnOnce() -> Result<i64, ErrorCode>,
    ) -> Result<Transaction, ErrorCode> {
        let recognised = asks.map(|asks| self.recognise(asks));
        let mut next = Transaction {
            timeout_ms,
            partitions: Partitions::default(),
            start_ms: -1,
            ..self.step(TransactionState::Empty, now)
        };
        match recognised {
            Some(Recognised::Fenced) => return Err(ErrorCode::PRODUCER_FENCED),
            // It is told the same once more, and may ask yet again: unlike in Kafka, where the second retry after a change of id is refused.
            Some(Recognised::Retry) => next.previous_producer_id = self.previous_producer_id,
            Some(Recognised::Current) | None => {
                // Who gives no epoch has no answer to ask for again, and whoever had the last epoch is fenced.
                next.last_producer_epoch = if recognised.is_some() {
                    self.producer_epoch
                } else {
                    NO_PRODUCER_EPOCH
                };
                if self.is_exhausted() {
                    next.producer_id = new_id()?;
                    next.producer_epoch = 0;
                } else {
                    next.producer_epoch = self.producer_epoch + 1;
                }
            }
        }
        Ok(next)
    }

    /// With more partitions: begins a transaction or goes on with one.
    pub fn added(&self, partitions: Partitions, client_version: i16, now: Now) -> Transaction {
        let ongoing = self.state == TransactionState::Ongoing;
        let mut next = Transaction {
            partitions,
            client_version,
            ..self.step(TransactionState::Ongoing, now)
        };
        if ongoing {
            next.deadline_ms = self.deadline_ms;
        } else {
            next.start_ms = now.wall_ms;
            next.deadline_ms = next.deadline_from(now.monotonic_ms, 0);
        }
        next
    }

    /// Decided. With `client_version` 2 the epoch is bumped, which fences whoever has the old one, and `next_producer_id` is what to go on with if there are no
    /// epochs left.
    pub fn prepared(
        &self,
        committed: bool,
        client_version: i16,
        next_producer_id: i64,
        now: Now,
    ) -> Transaction {
        let ongoing = self.state == TransactionState::Ongoing;
        let mut next = Transaction {
            client_version,
            next_producer_id,
            ..self.step(TransactionState::prepared(committed), now)
        };
        if !ongoing {
            // An abort without a partition: when the client began it nobody knows.
            next.start_ms = now.wall_ms;
        }
        if client_version >= EPOCH_BUMP_VERSION {
            match self.producer_epoch.checked_add(1) {
                Some(bumped) => {
                    next.producer_epoch = bumped;
                    next.last_producer_epoch = self.producer_epoch;
                }
                // No producer is ever given this epoch, so only another coordinator's records can hold it. It ends as it is: a partition that wants
                // a higher epoch in the marker is not asked for one.
                None => next.client_version = 0,
            }
        }
        next
    }

    /// Every marker is written.
    pub fn completed(&self, now: Now) -> Transaction {
        let committed = self.state.decision().unwrap_or(false);
        let identity = self.identity_after();
        Transaction {
            producer_id: identity.producer_id,
            producer_epoch: identity.epoch,
            next_producer_id: NO_PRODUCER_ID,
            partitions: Partitions::default(),
            ..self.step(TransactionState::complete(committed), now)
        }
    }

    /// When a transaction that has been going on for `age_ms` times out.
    pub fn deadline_from(&self, monotonic_ms: u64, age_ms: u64) -> Option<u64> {
        if self.timeout_ms == NO_TIMEOUT_MS {
            return None;
        }
        let timeout_ms = u64::try_from(self.timeout_ms).unwrap_or(0);
        Some(monotonic_ms.saturating_add(timeout_ms.saturating_sub(age_ms)))
    }
}
