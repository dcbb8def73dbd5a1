//! Up to where a log is stable: every transaction before the last stable offset is decided, and its marker lies below the high watermark (KIP-98).
//!
//! Kept as batches are noted, so that nobody has to search: the first offsets of open transactions, and those of transactions that ended at or past the high watermark.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Log, LogError, ReadError};
use crate::batch::BatchHeader;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::index::{AbortedTransaction, TransactionIndex};
use crate::producer_state::{
    ProducerBatch, ProducerEvent, ProducerStates, SequenceError, VerificationGuard,
};
use crate::segment::{StoredTransactions, path, read_transactions};

/// First offsets that keep a log from being stable beyond them.
#[derive(Debug, Default)]
pub(crate) struct UnstableOffsets {
    /// Each with when it was first seen, in ms of the wall clock.
    open: BTreeMap<i64, i64>,
    /// Of transactions whose marker is not below the high watermark: the marker's offset and the first offset, in order of the marker.
    ended: VecDeque<(i64, i64)>,
    ended_first: BTreeSet<i64>,
    /// Nothing from here on is known to be stable: the log is being read back.
    unknown_from: Option<i64>,
}

impl UnstableOffsets {
    /// A transaction begins at `first_offset`.
    pub fn begin(&mut self, first_offset: i64, now_ms: i64) {
        self.open.insert(first_offset, now_ms);
    }

    /// When the oldest open transaction was first seen, in ms of the wall clock.
    pub fn oldest_open_ms(&self) -> Option<i64> {
        self.open.first_key_value().map(|(_, seen_ms)| *seen_ms)
    }

    /// It has ended with the marker at `marker_offset`. Returns the first offset of the oldest transaction that is still open.
    pub fn end(&mut self, first_offset: i64, marker_offset: i64) -> Option<i64> {
        self.open.remove(&first_offset);
        self.ended.push_back((marker_offset, first_offset));
        self.ended_first.insert(first_offset);
        self.first_open()
    }

    fn first_open(&self) -> Option<i64> {
        self.open.first_key_value().map(|(offset, _)| *offset)
    }

    /// The high watermark has risen: returns the first unstable offset.
    #[inline]
    pub fn settle(&mut self, high_watermark: i64) -> Option<i64> {
        while let Some(&(marker_offset, first_offset)) = self.ended.front()
            && marker_offset < high_watermark
        {
            self.ended.pop_front();
            self.ended_first.remove(&first_offset);
        }
        self.first()
    }

    /// The first unstable offset.
    #[inline]
    pub fn first(&self) -> Option<i64> {
        let all = [
            self.first_open(),
            self.ended_first.first().copied(),
            self.unknown_from,
        ];
        all.into_iter().flatten().min()
    }

    /// What is open was read back; everything that was found is below the high watermark.
    pub fn reset(&mut self, open: impl Iterator<Item = i64>, now_ms: i64) {
        *self = Self {
            open: open.map(|offset| (offset, now_ms)).collect(),
            ..Self::default()
        };
    }

    /// Until [`UnstableOffsets::reset`] nothing from `offset` on is stable.
    pub fn hold(&mut self, offset: i64) {
        self.unknown_from = Some(offset);
    }
}

/// Lets producers and unstable offsets know of a batch; returns the transaction that it aborted.
#[inline]
pub(super) fn note_event(
    producers: &mut ProducerStates,
    unstable: &RefCell<UnstableOffsets>,
    event: &ProducerEvent,
    header: &BatchHeader,
    now_ms: i64,
) -> Option<AbortedTransaction> {
    let marker = match event {
        ProducerEvent::Records(batch) => {
            if let Some(first_offset) = producers.record(batch, header.last_offset(), now_ms) {
                unstable.borrow_mut().begin(first_offset, now_ms);
            }
            return None;
        }
        ProducerEvent::Marker(marker) => marker,
    };
    let first_offset = producers.end_transaction(
        marker.producer_id,
        marker.producer_epoch,
        marker.coordinator_epoch,
        marker.timestamp,
        now_ms,
    )?;
    let last_offset = header.base_offset;
    let still_open = unstable.borrow_mut().end(first_offset, last_offset);
    (!marker.committed).then(|| AbortedTransaction {
        producer_id: marker.producer_id,
        first_offset,
        last_offset,
        last_stable_offset: still_open.unwrap_or(last_offset + 1),
    })
}

impl<E: Environment> Log<E> {
    /// The offset before which every transaction is decided: what read_committed consumers may read. Never beyond the high watermark, nor before the log's start.
    pub fn last_stable_offset(&self) -> i64 {
        let log_start = self.log_start_offset().min(self.high_watermark());
        self.flush.last_stable_offset().max(log_start)
    }

    /// How long the oldest open transaction has been known here, in ms; none when there is none. As long as it is open, readers of committed records and compaction stop before it.
    pub fn oldest_open_transaction_ms(&self) -> Option<i64> {
        let seen_ms = self.flush.unstable.borrow().oldest_open_ms()?;
        Some(self.now_ms().saturating_sub(seen_ms).max(0))
    }

    /// Resolves when the last stable offset lies beyond `offset`, or the log was truncated; dropping the future ends the wait.
    ///
    /// # Errors
    /// When the log went offline or was deleted.
    pub async fn wait_for_stable(&self, offset: i64) -> Result<(), LogError> {
        let stable = || self.last_stable_offset();
        self.flush.wait_stable(offset, stable).await
    }

    /// Before the coordinator is asked whether a transaction may append here: `None` when it need not be, because the transaction has begun here already. Otherwise the batch is
    /// to be appended with the guard (KIP-890). With `supports_epoch_bump` the client raises its epoch with each transaction (transaction version 2).
    ///
    /// # Errors
    /// [`SequenceError::InvalidEpoch`].
    pub fn begin_verification(
        &self,
        batch: &ProducerBatch,
        supports_epoch_bump: bool,
    ) -> Result<Option<VerificationGuard>, SequenceError> {
        let mut state = self.state.borrow_mut();
        let is_open = state
            .producers
            .has_open_transaction(batch.producer_id, batch.producer_epoch)?;
        if is_open {
            return Ok(None);
        }
        let limits = self.producer_limits();
        let verifications = &mut state.verifications;
        let guard = verifications.begin(batch, supports_epoch_bump, limits);
        Ok(Some(guard))
    }

    /// Whether a coordinator of this broker may append, now, to a producer's transaction.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn check_from_coordinator(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        guard: Option<VerificationGuard>,
    ) -> Result<(), SequenceError> {
        let now_ms = self.now_ms();
        let state = self.state.borrow();
        let batch = ProducerBatch::of_coordinator(producer_id, producer_epoch);
        let producers = &state.producers;
        producers.check_coordinator_batch(&batch, &state.verifications, guard, now_ms)
    }

    /// The aborted transactions with records in `from_offset..upto_offset`, which must not lie beyond the last stable offset: producer id and first offset of each.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn aborted_transactions(
        &self,
        from_offset: i64,
        upto_offset: i64,
    ) -> Result<Vec<(i64, i64)>, ReadError> {
        if from_offset >= upto_offset {
            return Ok(Vec::new());
        }
        loop {
            let replacements = self.replacements.get();
            let found = self.aborted_between(from_offset, upto_offset).await;
            // Otherwise segments took the place of others meanwhile, and with them what their indexes know.
            if self.replacements.get() == replacements {
                let entries = found?.into_iter();
                return Ok(entries
                    .map(|entry| (entry.producer_id, entry.first_offset))
                    .collect());
            }
        }
    }

    async fn aborted_between(
        &self,
        from: i64,
        upto: i64,
    ) -> Result<Vec<AbortedTransaction>, ReadError> {
        let mut found = Vec::new();
        let mut base = {
            let state = self.state.borrow();
            state.segment_of(from).map(|segment| segment.base_offset)
        };
        // The marker may lie in any later segment.
        while let Some(at) = base {
            if self.aborted_in_segment(at, from, upto, &mut found).await? {
                break;
            }
            let state = self.state.borrow();
            base = state.segments.range(at + 1..).next().map(|(base, _)| *base);
        }
        Ok(found)
    }

    /// Adds what one segment's index knows; true when no later one can know more.
    async fn aborted_in_segment(
        &self,
        base: i64,
        from: i64,
        upto: i64,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<bool, ReadError> {
        let known = {
            let state = self.state.borrow();
            let Some(segment) = state.segments.get(&base) else {
                return Ok(false);
            };
            if let Some(indexes) = &segment.indexes {
                return Ok(indexes.transactions.collect(from, upto, found));
            }
            segment.lowest_aborted
        };
        match known {
            Some(lowest) if lowest >= upto => return Ok(false),
            // It is asked for again and again: keep it.
            Some(_) => {}
            None => {
                let replacements = self.replacements.get();
                let failed = |error: std::io::Error| {
                    ReadError::Log(self.storage_error("reading an index", &error))
                };
                let directory = self.path();
                let read = read_transactions(&self.shard.env, &directory, base).await;
                let index = match read.map_err(failed)? {
                    StoredTransactions::Found(index) => Some(index),
                    StoredTransactions::Missing => {
                        // Missing with the others it is not empty but lost.
                        let offsets = path(&directory, base, "index");
                        let others = self.shard.env.disk().exists(&offsets).await;
                        others.map_err(failed)?.then(TransactionIndex::new)
                    }
                    StoredTransactions::Damaged => None,
                };
                if let Some(index) = index {
                    if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base)
                        && segment.sealed
                        && self.replacements.get() == replacements
                    {
                        segment.lowest_aborted = Some(index.lowest_first_offset());
                    }
                    return Ok(index.collect(from, upto, found));
                }
            }
        }
        self.load_indexes(base).await?;
        let state = self.state.borrow();
        let indexes = state
            .segments
            .get(&base)
            .and_then(|segment| segment.indexes.as_ref());
        Ok(indexes.is_some_and(|indexes| indexes.transactions.collect(from, upto, found)))
    }
}

#[cfg(test)]
mod tests {
    //! The first unstable offset is that of the oldest transaction that is open, or whose marker is not below the high watermark.
    use super::UnstableOffsets;

    #[test]
    fn what_is_open_or_ended_past_the_high_watermark_is_unstable() {
        let mut unstable = UnstableOffsets::default();
        assert_eq!(unstable.settle(3), None);
        unstable.begin(5, 500);
        unstable.begin(7, 700);
        assert_eq!(unstable.settle(8), Some(5));
        // The first ends at 9: its marker is not below 9, but below 10.
        assert_eq!(unstable.oldest_open_ms(), Some(500));
        assert_eq!(unstable.end(5, 9), Some(7));
        assert_eq!(unstable.oldest_open_ms(), Some(700));
        assert_eq!(unstable.settle(9), Some(5));
        assert_eq!(unstable.settle(10), Some(7));
        assert_eq!(unstable.end(7, 10), None);
        unstable.begin(11, 1100);
        assert_eq!(unstable.end(11, 12), None);
        assert_eq!(unstable.settle(11), Some(11));
        assert_eq!(unstable.settle(13), None);
    }

    #[test]
    fn while_it_is_read_back_nothing_is_stable() {
        let mut unstable = UnstableOffsets::default();
        unstable.begin(8, 800);
        unstable.hold(2);
        assert_eq!(unstable.settle(20), Some(2));
        unstable.reset([6, 4].into_iter(), 900);
        assert_eq!(unstable.first(), Some(4));
        unstable.reset(std::iter::empty(), 900);
        assert_eq!(unstable.first(), None);
    }
}
