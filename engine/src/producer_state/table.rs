//! The table: one entry per producer id with its epoch and last five batches, in order of last use.
//!
//! Entries live in one vector and are linked by index from least to most recently used, so that expiry and eviction look at the oldest only. Once a producer is known,
//! nothing allocates. Bounded by [`ProducerLimits::producers_max`]: a new producer then takes the place of the one unused for longest, unless that has an open transaction; if all have, it is refused.

use std::collections::HashMap;

use super::rules::{History, KeptBatch, ProducerBatch, SequenceCheck, SequenceError};
use crate::batch::NO_TIMESTAMP;

const NONE: u32 = u32::MAX;

/// Limits of one log's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// `producer.states.max`: producers remembered per log.
    pub producers_max: u32,
    /// `producer.id.expiration.ms`: forgotten when unused for so long.
    pub expiration_ms: i64,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        Self {
            producers_max: 10_000,
            expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// One producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub producer_id: i64,
    pub history: History,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    /// First offset of the open transaction, or -1.
    pub transaction_first_offset: i64,
    /// When the entry was last used, on the caller's clock.
    used_ms: i64,
    older: u32,
    newer: u32,
}

impl Entry {
    fn new(producer_id: i64, epoch: i16, used_ms: i64) -> Self {
        Self {
            producer_id,
            history: History::new(epoch),
            last_timestamp: NO_TIMESTAMP,
            coordinator_epoch: -1,
            transaction_first_offset: -1,
            used_ms,
            older: NONE,
            newer: NONE,
        }
    }
}

/// A producer as a snapshot stores it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub producer_id: i64,
    pub epoch: i16,
    pub last_batch: Option<KeptBatch>,
    pub last_timestamp: i64,
    pub coordinator_epoch: i32,
    pub transaction_first_offset: i64,
}

/// One producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerView {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record, -1 where there is none.
    pub last_sequence: i32,
    /// Largest timestamp of its last batch in ms, -1 where there is none.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that ended its last transaction, -1 for none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, -1 for none.
    pub current_transaction_start_offset: i64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ProducerStates {
    limits: ProducerLimits,
    by_id: HashMap<i64, u32>,
    entries: Vec<Entry>,
    oldest: u32,
    newest: u32,
}

impl ProducerStates {
    /// An empty table; allocates nothing.
    pub fn new(limits: ProducerLimits) -> Self {
        Self {
            limits,
            by_id: HashMap::new(),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    /// Changes the limits; they apply from the next use on.
    pub fn set_limits(&mut self, limits: ProducerLimits) {
        self.limits = limits;
    }

    /// Number of producers remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Judges a client's batch. Changes nothing; `now_ms` is the same clock as in [`ProducerStates::record`].
    ///
    /// Order of the rules: an older epoch is refused; one of the last five batches sent again is a duplicate; a new epoch must start at sequence 0; otherwise the
    /// sequence must follow the last one; and who has a transaction open sends nothing outside of it. A producer that is not known, or expired, may start anywhere. Of a transactional batch
    /// [`ProducerStates::check_transactional`] asks more.
    pub fn check(
        &self,
        batch: &ProducerBatch,
        now_ms: i64,
    ) -> Result<SequenceCheck, SequenceError> {
        let Some(entry) = self
            .get(batch.producer_id)
            .filter(|entry| !self.is_expired(entry, now_ms))
        else {
            return self.room_for_one_more().map(|()| SequenceCheck::Fresh);
        };
        let check = entry.history.check(batch)?;
        if check == SequenceCheck::Fresh
            && entry.transaction_first_offset >= 0
            && !batch.transactional
        {
            return Err(SequenceError::InvalidTransactionState {
                producer_id: batch.producer_id,
                reason: "it has a transaction open, and sent a batch that is not part of it",
            });
        }
        Ok(check)
    }

    /// Remembers a batch that was appended with `last_offset`; also used, without [`ProducerStates::check`], for batches of a leader and when a log is read back.
    ///
    /// `now_ms`: a clock that does not jump, in ms; expiry counts from here. Frees at most a few expired entries on the way. Returns the batch's first offset where it begins a transaction.
    pub fn record(&mut self, batch: &ProducerBatch, last_offset: i64, now_ms: i64) -> Option<i64> {
        self.expire(now_ms, 2);
        let index = self.entry_for(batch.producer_id, batch.producer_epoch, now_ms);
        let entry = &mut self.entries[index as usize];
        entry.history.enter_epoch(batch.producer_epoch);
        entry.history.push(KeptBatch {
            last_sequence: batch.last_sequence(),
            last_offset,
            offset_delta: batch.last_offset_delta,
            timestamp: batch.max_timestamp,
        });
        entry.last_timestamp = batch.max_timestamp;
        if batch.transactional && entry.transaction_first_offset < 0 {
            let first_offset = last_offset - i64::from(batch.last_offset_delta);
            entry.transaction_first_offset = first_offset;
            return Some(first_offset);
        }
        None
    }

    /// Forgets up to `budget` producers unused for longer than `producer.id.expiration.ms`; returns how many. A producer in an open transaction counts as in use.
    pub fn expire(&mut self, now_ms: i64, budget: usize) -> usize {
        let mut forgotten = 0;
        // Those in open transactions go to the back of the line: once round it is enough.
        for _ in 0..budget.min(self.entries.len()) {
            let Some(oldest) = self.entries.get(self.oldest as usize) else {
                break;
            };
            if oldest.transaction_first_offset >= 0 {
                self.touch(self.oldest, now_ms);
            } else if self.is_expired(oldest, now_ms) {
                self.remove(self.oldest);
                forgotten += 1;
                if self.entries.is_empty() {
                    // An idle log holds nothing.
                    self.clear();
                }
            } else {
                break;
            }
        }
        forgotten
    }

    /// Notes a transaction marker at the log's control batch: the producer's transaction is over, and its epoch is at least the marker's. Returns the transaction's first
    /// offset, where one was open.
    pub fn end_transaction(
        &mut self,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        timestamp: i64,
        now_ms: i64,
    ) -> Option<i64> {
        let index = self.entry_for(producer_id, producer_epoch, now_ms);
        let entry = &mut self.entries[index as usize];
        entry.history.enter_epoch(producer_epoch);
        entry.coordinator_epoch = coordinator_epoch;
        entry.last_timestamp = timestamp;
        let first_offset = std::mem::replace(&mut entry.transaction_first_offset, -1);
        (first_offset >= 0).then_some(first_offset)
    }

    /// Forgets everything (before the log is read back after a truncation: a snapshot at or below the new end, then the batches after it).
    pub fn clear(&mut self) {
        self.by_id = HashMap::new();
        self.entries = Vec::new();
        self.oldest = NONE;
        self.newest = NONE;
    }

    /// All producers by ascending id, expired ones left out.
    pub fn views(&self, now_ms: i64) -> Vec<ProducerView> {
        let mut views: Vec<ProducerView> = self
            .entries
            .iter()
            .filter(|entry| !self.is_expired(entry, now_ms))
            .map(|entry| ProducerView {
                producer_id: entry.producer_id,
                producer_epoch: entry.history.epoch,
                last_sequence: entry.history.last_sequence(),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_transaction_start_offset: entry.transaction_first_offset,
            })
            .collect();
        views.sort_unstable_by_key(|view| view.producer_id);
        views
    }

    /// First offsets of all open transactions, in no order.
    pub fn open_transactions(&self) -> impl Iterator<Item = i64> {
        self.entries
            .iter()
            .map(|entry| entry.transaction_first_offset)
            .filter(|&offset| offset >= 0)
    }

    /// First offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.open_transactions().min()
    }

    /// Entries from least to most recently used.
    pub(super) fn by_use(&self) -> impl Iterator<Item = &Entry> {
        let mut index = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(index as usize)?;
            index = entry.newer;
            Some(entry)
        })
    }

    /// Takes over a stored producer as the most recently used, in place of what was known of it.
    pub(super) fn restore(&mut self, stored: &Stored, now_ms: i64) {
        let index = self.entry_for(stored.producer_id, stored.epoch, now_ms);
        let entry = &mut self.entries[index as usize];
        entry.history = History::new(stored.epoch);
        entry.last_timestamp = stored.last_timestamp;
        entry.coordinator_epoch = stored.coordinator_epoch;
        entry.transaction_first_offset = stored.transaction_first_offset;
        if let Some(batch) = stored.last_batch {
            entry.history.push(batch);
        }
    }

    /// Puts older batches before the last one of a stored producer; ignored where it is not known.
    pub(super) fn restore_earlier(&mut self, producer_id: i64, earlier: &[KeptBatch]) {
        if let Some(&index) = self.by_id.get(&producer_id) {
            self.entries[index as usize].history.prepend(earlier);
        }
    }

    pub(super) fn get(&self, producer_id: i64) -> Option<&Entry> {
        self.by_id
            .get(&producer_id)
            .and_then(|&index| self.entries.get(index as usize))
    }

    #[inline]
    pub(super) fn is_expired(&self, entry: &Entry, now_ms: i64) -> bool {
        entry.transaction_first_offset < 0
            && now_ms.saturating_sub(entry.used_ms) >= self.limits.expiration_ms
    }

    pub(super) fn room_for_one_more(&self) -> Result<(), SequenceError> {
        if self.entries.len() < self.limits.producers_max as usize || self.evictable().is_some() {
            return Ok(());
        }
        Err(SequenceError::TooManyProducers {
            producers_max: self.limits.producers_max,
        })
    }

    /// The entry unused for longest that has no open transaction.
    fn evictable(&self) -> Option<u32> {
        let mut index = self.oldest;
        while let Some(entry) = self.entries.get(index as usize) {
            if entry.transaction_first_offset < 0 {
                return Some(index);
            }
            index = entry.newer;
        }
        None
    }

    /// The entry of a producer, made where there is none, as the most recently used.
    fn entry_for(&mut self, producer_id: i64, epoch: i16, now_ms: i64) -> u32 {
        if let Some(&index) = self.by_id.get(&producer_id) {
            let entry = &self.entries[index as usize];
            if self.is_expired(entry, now_ms) {
                // It came back before its turn to be forgotten: it is unknown all the same.
                self.entries[index as usize].history = History::new(epoch);
            }
            self.touch(index, now_ms);
            return index;
        }
        // Twice, so that a table shrinks after its limit was lowered.
        for _ in 0..2 {
            if self.entries.len() >= self.limits.producers_max.max(1) as usize
                && let Some(index) = self.evictable()
            {
                self.remove(index);
            }
        }
        if self.entries.is_empty() {
            // Most logs see one producer or a few: do not begin with room for four.
            self.entries.reserve_exact(1);
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry::new(producer_id, epoch, now_ms));
        self.by_id.insert(producer_id, index);
        self.link_newest(index);
        index
    }

    fn touch(&mut self, index: u32, now_ms: i64) {
        self.entries[index as usize].used_ms = now_ms;
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    fn link_newest(&mut self, index: u32) {
        let before = self.newest;
        let entry = &mut self.entries[index as usize];
        entry.older = before;
        entry.newer = NONE;
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { older, newer, .. } = self.entries[index as usize];
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index);
        let removed = self.entries.swap_remove(index as usize);
        self.by_id.remove(&removed.producer_id);
        // The last entry took the free place: whoever pointed at it follows.
        if let Some(&Entry {
            producer_id,
            older,
            newer,
            ..
        }) = self.entries.get(index as usize)
        {
            self.by_id.insert(producer_id, index);
            match self.entries.get_mut(older as usize) {
                Some(entry) => entry.newer = index,
                None => self.oldest = index,
            }
            match self.entries.get_mut(newer as usize) {
                Some(entry) => entry.older = index,
                None => self.newest = index,
            }
        }
    }
}
