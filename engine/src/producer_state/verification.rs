//! Verifications under way: that a partition is part of a producer's transaction is asked of the coordinator before the first batch is appended (KIP-890).
//!
//! A guard is given out before the coordinator is asked. If the transaction ends meanwhile, its marker takes the guard away, and the coordinator's late "yes"
//! opens nothing. The first batch that is appended takes it away, too: from then on the open transaction itself is the proof. Nothing of this is stored.

use std::collections::BTreeMap;

use super::rules::ProducerBatch;
use super::table::ProducerLimits;
use crate::batch::EndTransactionMarker;

/// Says which verification a batch relies on; no two of a log are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerificationGuard(u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    guard: VerificationGuard,
    epoch: i16,
    /// The lowest sequence that was to be verified in the epoch: if that is refused for a time, no higher one may overtake it.
    lowest_sequence: i32,
    supports_epoch_bump: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Verifications {
    by_producer: BTreeMap<i64, Entry>,
    next: u64,
}

impl Verifications {
    /// Begins, or goes on with, the verification of a producer's batch. Bounded as the producers themselves are, by their number; where there are as many, the oldest go. A verification takes
    /// milliseconds: they have been refused, or given up, and whoever makes up producers must not keep others from theirs.
    pub fn begin(
        &mut self,
        batch: &ProducerBatch,
        supports_epoch_bump: bool,
        limits: ProducerLimits,
    ) -> VerificationGuard {
        let (epoch, sequence) = (batch.producer_epoch, batch.base_sequence);
        if let Some(entry) = self.by_producer.get_mut(&batch.producer_id) {
            if epoch > entry.epoch {
                (entry.epoch, entry.lowest_sequence) = (epoch, sequence);
            } else if epoch == entry.epoch {
                entry.lowest_sequence = entry.lowest_sequence.min(sequence);
            }
            return entry.guard;
        }
        if self.by_producer.len() >= limits.producers_max as usize {
            // Guards are numbered in order; several at once, so that the search is rare.
            let kept = u64::from(limits.producers_max - limits.producers_max / 8).saturating_sub(1);
            let oldest = self.next.saturating_sub(kept);
            self.by_producer.retain(|_, entry| entry.guard.0 > oldest);
        }
        self.next += 1;
        let guard = VerificationGuard(self.next);
        let entry = Entry {
            guard,
            epoch,
            lowest_sequence: sequence,
            supports_epoch_bump,
        };
        self.by_producer.insert(batch.producer_id, entry);
        guard
    }

    /// Whether `guard` is still the producer's.
    pub fn holds(&self, producer_id: i64, guard: Option<VerificationGuard>) -> bool {
        let entry = self.by_producer.get(&producer_id);
        entry.is_some_and(|entry| Some(entry.guard) == guard)
    }

    /// The lowest sequence to be verified, and whether the producer's epoch rises with each transaction.
    pub(super) fn sequence_of(&self, producer_id: i64) -> Option<(i32, bool)> {
        let entry = self.by_producer.get(&producer_id)?;
        Some((entry.lowest_sequence, entry.supports_epoch_bump))
    }

    /// A transactional batch of the producer was appended.
    pub fn appended(&mut self, producer_id: i64) {
        self.by_producer.remove(&producer_id);
    }

    /// A marker was appended. It ends what is being verified, unless that belongs to the next transaction: with epoch bumps this has the marker's epoch.
    pub fn ended(&mut self, marker: &EndTransactionMarker) {
        let next_transaction = self
            .by_producer
            .get(&marker.producer_id)
            .is_some_and(|entry| entry.supports_epoch_bump && entry.epoch == marker.producer_epoch);
        if !next_transaction {
            self.by_producer.remove(&marker.producer_id);
        }
    }
}
