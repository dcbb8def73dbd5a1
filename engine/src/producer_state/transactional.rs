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

#[cfg(test)]
mod tests {
    //! A transaction's first batch needs a guard that no marker has taken away; markers are judged by epoch and coordinator; what is open mixes with nothing.
    use super::*;
    use crate::batch::code;
    use crate::producer_state::ProducerLimits;

    const LIMITS: ProducerLimits = ProducerLimits {
        producers_max: 2,
        expiration_ms: 1000,
    };

    fn batch(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> ProducerBatch {
        ProducerBatch {
            producer_id,
            producer_epoch,
            base_sequence,
            last_offset_delta: 0,
            max_timestamp: 0,
            transactional: true,
        }
    }

    fn marker(producer_epoch: i16, coordinator_epoch: i32) -> EndTransactionMarker {
        EndTransactionMarker {
            producer_id: 1,
            producer_epoch,
            coordinator_epoch,
            committed: false,
            timestamp: 0,
        }
    }

    /// A log's table and its verifications, in which offsets count batches.
    struct Log {
        states: ProducerStates,
        verifications: Verifications,
        end: i64,
    }

    impl Log {
        fn new() -> Self {
            Self {
                states: ProducerStates::new(LIMITS),
                verifications: Verifications::default(),
                end: 0,
            }
        }

        fn begin(&mut self, batch: &ProducerBatch, bumps: bool) -> VerificationGuard {
            self.verifications.begin(batch, bumps, LIMITS)
        }

        fn append(
            &mut self,
            batch: &ProducerBatch,
            guard: Option<VerificationGuard>,
        ) -> Result<SequenceCheck, i16> {
            let check = self
                .states
                .check_transactional(batch, &self.verifications, guard, 0)
                .map_err(|error| error.code())?;
            if check == SequenceCheck::Fresh {
                self.states.record(batch, self.end, 0);
                self.verifications.appended(batch.producer_id);
                self.end += 1;
            }
            Ok(check)
        }

        fn end(&mut self, marker: &EndTransactionMarker, version: i8) -> Result<Option<i64>, i16> {
            self.states
                .check_marker(marker, version)
                .map_err(|error| error.code())?;
            self.verifications.ended(marker);
            self.end += 1;
            let (epoch, coordinator) = (marker.producer_epoch, marker.coordinator_epoch);
            Ok(self.states.end_transaction(1, epoch, coordinator, 0, 0))
        }
    }

    #[test]
    fn the_first_batch_of_a_transaction_needs_the_guard_that_stands() {
        let mut log = Log::new();
        let first = batch(1, 0, 0);
        assert_eq!(log.append(&first, None), Err(code::INVALID_TXN_STATE));
        let guard = log.begin(&first, false);
        assert_eq!(log.begin(&first, false), guard, "asked again, the same");
        // The transaction ends while the coordinator's answer is on its way, and another begins.
        assert_eq!(log.end(&marker(0, 1), 1), Ok(None));
        assert_eq!(
            log.append(&first, Some(guard)),
            Err(code::INVALID_TXN_STATE)
        );
        let next = log.begin(&first, false);
        assert_ne!(next, guard);
        assert_eq!(
            log.append(&first, Some(guard)),
            Err(code::INVALID_TXN_STATE)
        );
        assert_eq!(log.append(&first, Some(next)), Ok(SequenceCheck::Fresh));
        // From now on the open transaction is proof enough, in this epoch.
        assert_eq!(log.states.has_open_transaction(1, 0), Ok(true));
        assert_eq!(log.append(&batch(1, 0, 1), None), Ok(SequenceCheck::Fresh));
        assert_eq!(log.states.has_open_transaction(1, 1), Ok(false));
        assert_eq!(
            log.append(&batch(1, 1, 0), None),
            Err(code::INVALID_TXN_STATE)
        );
        assert_eq!(log.end(&marker(0, 1), 1), Ok(Some(1)));
        // Sent again after its end a batch still is a duplicate, and nothing else goes.
        assert!(matches!(
            log.append(&first, None),
            Ok(SequenceCheck::Duplicate(_))
        ));
        assert_eq!(
            log.append(&batch(1, 0, 2), None),
            Err(code::INVALID_TXN_STATE)
        );
    }

    #[test]
    fn a_guard_of_the_next_epoch_outlives_the_marker_that_raised_it() {
        let mut log = Log::new();
        let guard = log.begin(&batch(1, 0, 0), true);
        log.append(&batch(1, 0, 0), Some(guard)).expect("verified");
        let next = batch(1, 1, 0);
        let guard = log.begin(&next, true);
        assert_eq!(log.end(&marker(1, 1), 2), Ok(Some(0)));
        assert_eq!(log.append(&next, Some(guard)), Ok(SequenceCheck::Fresh));
        assert!(log.states.has_open_transaction(1, 0).is_err());
        let late = log.append(&batch(1, 0, 1), Some(guard));
        assert_eq!(late, Err(code::INVALID_PRODUCER_EPOCH));
    }

    #[test]
    fn no_sequence_overtakes_one_that_waits_to_be_verified() {
        let mut log = Log::new();
        let guard = log.begin(&batch(1, 0, 7), false);
        assert_eq!(log.begin(&batch(1, 0, 5), false), guard);
        let overtaking = log.append(&batch(1, 0, 7), Some(guard));
        assert_eq!(overtaking, Err(code::OUT_OF_ORDER_SEQUENCE_NUMBER));
        assert_eq!(
            log.append(&batch(1, 0, 5), Some(guard)),
            Ok(SequenceCheck::Fresh)
        );
        // Whose epoch rises with each transaction begins at 0, known or not.
        let guard = log.begin(&batch(2, 3, 4), true);
        let unknown = log.append(&batch(2, 3, 4), Some(guard));
        assert_eq!(unknown, Err(code::OUT_OF_ORDER_SEQUENCE_NUMBER));
    }

    #[test]
    fn markers_are_judged_by_epoch_and_coordinator() {
        let mut log = Log::new();
        let first = batch(1, 4, 0);
        let guard = log.begin(&first, true);
        log.append(&first, Some(guard)).expect("verified");
        let invalid = Err(code::INVALID_PRODUCER_EPOCH);
        assert_eq!(log.end(&marker(3, 1), 1), invalid);
        assert_eq!(log.end(&marker(3, 1), 2), invalid);
        assert_eq!(log.end(&marker(4, 1), 2), invalid, "it must be ahead");
        assert_eq!(log.end(&marker(5, 6), 2), Ok(Some(0)));
        // Written again, or by a new coordinator, it finds nothing to end; of an old one it is refused.
        assert_eq!(log.end(&marker(5, 6), 2), Ok(None));
        assert_eq!(log.end(&marker(5, 7), 2), Ok(None));
        let fenced = Err(code::TRANSACTION_COORDINATOR_FENCED);
        assert_eq!(log.end(&marker(5, 6), 2), fenced);
        assert_eq!(log.end(&marker(4, 7), 2), invalid);
        // The last epoch cannot be passed.
        let last = batch(1, i16::MAX, 0);
        let guard = log.begin(&last, true);
        log.append(&last, Some(guard)).expect("verified");
        assert!(
            log.end(&marker(i16::MAX, 7), 2)
                .is_ok_and(|ended| ended.is_some())
        );
    }

    #[test]
    fn what_is_open_mixes_with_nothing() {
        let mut log = Log::new();
        let guard = log.begin(&batch(1, 0, 0), false);
        log.append(&batch(1, 0, 0), Some(guard)).expect("verified");
        let plain = ProducerBatch {
            transactional: false,
            ..batch(1, 0, 1)
        };
        let mixed = log.states.check(&plain, 0).map_err(|error| error.code());
        assert_eq!(mixed, Err(code::INVALID_TXN_STATE));
        let offsets = ProducerBatch {
            base_sequence: NO_SEQUENCE,
            ..batch(1, 0, 0)
        };
        let of_coordinator = |log: &Log, batch: &ProducerBatch, guard| {
            log.states
                .check_coordinator_batch(batch, &log.verifications, guard, 0)
                .map_err(|error| error.code())
        };
        assert_eq!(of_coordinator(&log, &offsets, None), Ok(()));
        let outside = ProducerBatch {
            transactional: false,
            ..offsets
        };
        let mixed = of_coordinator(&log, &outside, None);
        assert_eq!(mixed, Err(code::INVALID_TXN_STATE));
        let other = ProducerBatch {
            producer_id: 2,
            ..offsets
        };
        let unverified = of_coordinator(&log, &other, None);
        assert_eq!(unverified, Err(code::INVALID_TXN_STATE));
        let guard = log.begin(&other, false);
        assert_eq!(of_coordinator(&log, &other, Some(guard)), Ok(()));
        // It has no sequence, and survives a snapshot.
        log.states.record(&other, 9, 0);
        let bytes = log.states.encode_snapshot(0);
        let again = ProducerStates::decode_snapshot(&bytes, LIMITS, 0).expect("its own bytes");
        assert_eq!(again.views(0), log.states.views(0));
    }

    #[test]
    fn made_up_producers_keep_nobody_from_a_verification() {
        const MAX: u32 = 100;
        let limits = ProducerLimits {
            producers_max: MAX,
            ..LIMITS
        };
        let mut verifications = Verifications::default();
        for producer_id in 0..10 * i64::from(MAX) {
            let guard = verifications.begin(&batch(producer_id, 0, 0), false, limits);
            assert!(verifications.holds(producer_id, Some(guard)));
            let held = (0..=producer_id).filter(|id| verifications.sequence_of(*id).is_some());
            let held: Vec<i64> = held.collect();
            assert!(held.len() <= MAX as usize);
            // The newest of them, without a gap.
            assert_eq!(
                held.first().map(|id| producer_id - id + 1),
                Some(held.len() as i64)
            );
            assert!(held.len() as i64 >= (producer_id + 1).min(i64::from(MAX) * 7 / 8));
        }
    }
}
