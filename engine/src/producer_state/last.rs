//! What compaction has to leave of a producer: the place of its last batch, which carries the sequence that the next one must follow.

use std::collections::HashMap;

use super::table::ProducerStates;

/// The last that a log holds of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfProducer {
    /// Its epoch.
    pub epoch: i16,
    /// The last offset of its last batch of records; `None` when only markers of it remain.
    pub last_data_offset: Option<i64>,
}

impl ProducerStates {
    /// The last of each producer that has not expired.
    pub fn last_of_producers(&self, now_ms: i64) -> HashMap<i64, LastOfProducer> {
        let live = self
            .by_use()
            .filter(|entry| !self.is_expired(entry, now_ms));
        live.map(|entry| {
            let last = LastOfProducer {
                epoch: entry.history.epoch,
                last_data_offset: entry
                    .history
                    .batches()
                    .last()
                    .map(|batch| batch.last_offset),
            };
            (entry.producer_id, last)
        })
        .collect()
    }
}
