//! What is asked of transactional batches and of transaction markers beyond the sequence (KIP-98, KIP-890).

use super::rules::{ProducerBatch, SequenceCheck, SequenceError};
use super::table::{Entry, ProducerStates};
use super::verification::{VerificationGuard, Verifications};
use crate::batch::{EndTransactionMarker, NO_SEQUENCE};

/// From this transaction version on a marker carries the producer's next epoch.
const EPOCH_BUMPED_FROM: i8 = 2;

impl ProducerStates {
    /// Judges a client's transactional batch. Changes nothing.
    ///
    /// A batch sent again is a duplicate whatever became of its transaction. The first batch of a transaction must have been verified: `guard` is what
    /// [`Verifications::begin`] gave before the coordinator was asked, and still stands there. Then come the rules of [`ProducerStates::check`].
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn check_transactional(
        &self,
        batch: &ProducerBatch,
        verifications: &Verifications,
        guard: Option<VerificationGuard>,
        now_ms: i64,
    ) -> Result<SequenceCheck, SequenceError> {
        let entry = self
            .get(batch.producer_id)
            .filter(|entry| !self.is_expired(entry, now_ms));
        if let Some(original) = entry.and_then(|entry| entry.history.original_of(batch)) {
            return Ok(SequenceCheck::Duplicate(original));
        }
        check_verified(entry, batch, verifications, guard)?;
        let has_batches = entry.is_some_and(|entry| !entry.history.batches().is_empty());
        verifications.check_sequence(batch, has_batches)?;
        self.check(batch, now_ms)
    }

    /// Judges a transactional batch that a coordinator writes for a producer (offsets committed in a transaction): it has no sequence.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn check_coordinator_batch(
        &self,
        batch: &ProducerBatch,
        verifications: &Verifications,
        guard: Option<VerificationGuard>,
        now_ms: i64,
    ) -> Result<(), SequenceError> {
        let entry = self
            .get(batch.producer_id)
            .filter(|entry| !self.is_expired(entry, now_ms));
        if batch.transactional {
            check_verified(entry, batch, verifications, guard)?;
        }
        let Some(entry) = entry else {
            return self.room_for_one_more();
        };
        check_epoch(entry, batch)?;
        if entry.transaction_first_offset >= 0 && !batch.transactional {
            return Err(SequenceError::InvalidTransactionState {
                producer_id: batch.producer_id,
                reason: "it has a transaction open, and the batch is not part of it",
            });
        }
        Ok(())
    }

    /// Judges a marker on the leader. Changes nothing.
    ///
    /// Its epoch must not be behind the producer's; with `transaction_version` 2 it must be ahead, but for a marker written again, which finds its
    /// epoch there and no transaction (and for the last epoch there is, which cannot be passed). Its coordinator must not have been replaced.
    ///
    /// # Errors
    /// [`SequenceError::InvalidEpoch`], [`SequenceError::CoordinatorFenced`].
    pub fn check_marker(
        &self,
        marker: &EndTransactionMarker,
        transaction_version: i8,
    ) -> Result<(), SequenceError> {
        let producer_id = marker.producer_id;
        let Some(entry) = self.get(producer_id) else {
            return Ok(());
        };
        let (epoch, current) = (marker.producer_epoch, entry.history.epoch);
        let bumped = transaction_version >= EPOCH_BUMPED_FROM;
        let again = epoch == current && (entry.transaction_first_offset < 0 || epoch == i16::MAX);
        if epoch < current || (bumped && epoch == current && !again) {
            return Err(SequenceError::InvalidEpoch {
                producer_id,
                epoch,
                current,
            });
        }
        if entry.coordinator_epoch > marker.coordinator_epoch {
            return Err(SequenceError::CoordinatorFenced {
                producer_id,
                given: marker.coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// What a batch may rely on before its coordinator is asked: whether the producer's transaction is open here in this epoch, so that nobody need be asked.
    ///
    /// # Errors
    /// [`SequenceError::InvalidEpoch`] when a newer instance has taken over.
    pub fn has_open_transaction(
        &self,
        producer_id: i64,
        producer_epoch: i16,
    ) -> Result<bool, SequenceError> {
        let Some(entry) = self.get(producer_id) else {
            return Ok(false);
        };
        let current = entry.history.epoch;
        if producer_epoch < current {
            return Err(SequenceError::InvalidEpoch {
                producer_id,
                epoch: producer_epoch,
                current,
            });
        }
        Ok(entry.transaction_first_offset >= 0 && producer_epoch == current)
    }
}

fn check_epoch(entry: &Entry, batch: &ProducerBatch) -> Result<(), SequenceError> {
    if batch.producer_epoch < entry.history.epoch {
        return Err(SequenceError::InvalidEpoch {
            producer_id: batch.producer_id,
            epoch: batch.producer_epoch,
            current: entry.history.epoch,
        });
    }
    Ok(())
}

/// A transactional batch continues the open transaction of its epoch, or was verified to begin one.
fn check_verified(
    entry: Option<&Entry>,
    batch: &ProducerBatch,
    verifications: &Verifications,
    guard: Option<VerificationGuard>,
) -> Result<(), SequenceError> {
    if let Some(entry) = entry {
        check_epoch(entry, batch)?;
        if entry.transaction_first_offset >= 0 && entry.history.epoch == batch.producer_epoch {
            return Ok(());
        }
    }
    if verifications.holds(batch.producer_id, guard) {
        return Ok(());
    }
    Err(SequenceError::InvalidTransactionState {
        producer_id: batch.producer_id,
        reason: "the batch is not part of an ongoing transaction",
    })
}

impl Verifications {
    /// What a verification remembers of sequences: none after one that waits to be sent again, and with epoch bumps none but 0 where nothing was appended in the epoch.
    fn check_sequence(
        &self,
        batch: &ProducerBatch,
        has_batches: bool,
    ) -> Result<(), SequenceError> {
        let Some((lowest, supports_epoch_bump)) = self.sequence_of(batch.producer_id) else {
            return Ok(());
        };
        let sequence = batch.base_sequence;
        let skips = supports_epoch_bump && sequence != 0 && !has_batches;
        if skips || sequence > lowest {
            return Err(SequenceError::OutOfOrder {
                producer_id: batch.producer_id,
                sequence,
                last: NO_SEQUENCE,
            });
        }
        Ok(())
    }
}
