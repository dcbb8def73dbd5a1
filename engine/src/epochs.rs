//! The leader-epoch cache of one log: at which offset each leader epoch started.
//!
//! Followers and consumers use it to find where their log parted from the leader's (KIP-101, KIP-279, KIP-320). Entries strictly increase in both epoch and start
//! offset. Pure memory; the text form is Kafka's `leader-epoch-checkpoint`, written and read by [`crate::checkpoint`]. Grows by one entry per change of leader and shrinks with the log start.

/// Answer for an epoch that is not known.
pub const UNDEFINED_EPOCH: i32 = -1;
/// Answer where no offset can be named.
pub const UNDEFINED_EPOCH_OFFSET: i64 = -1;

/// A leader epoch and the first offset written in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader epoch, ≥ 0.
    pub epoch: i32,
    /// First offset of that epoch, ≥ 0.
    pub start_offset: i64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// An empty cache.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// From stored entries. An entry that contradicts an earlier one replaces it, as [`LeaderEpochs::assign`] does.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> Self {
        let mut epochs = Self::new();
        for entry in entries {
            epochs.assign(entry.epoch, entry.start_offset);
        }
        epochs
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch; `None` before the first append.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// Notes that `epoch` begins at `start_offset`; true where that changed something (then the checkpoint is to be written).
    ///
    /// Call it for every batch: within the same epoch it costs one comparison. Later entries that the new one contradicts (same or newer epoch, or same or later start)
    /// are dropped. A negative epoch or offset is not noted.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || start_offset < 0 {
            return false;
        }
        if let Some(last) = self.entries.last()
            && last.epoch == epoch
            && start_offset >= last.start_offset
        {
            return false;
        }
        while let Some(last) = self.entries.last()
            && (last.epoch >= epoch || last.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push(EpochEntry {
            epoch,
            start_offset,
        });
        true
    }

    /// The largest epoch ≤ `epoch` that this log knows, and where it ends (KIP-279).
    ///
    /// For the newest epoch that is `log_end_offset`; for one newer than all, `(-1, -1)`; for one older than all, the asked epoch with the first start offset.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> (i32, i64) {
        if epoch == UNDEFINED_EPOCH {
            return (UNDEFINED_EPOCH, UNDEFINED_EPOCH_OFFSET);
        }
        let newer = self.entries.partition_point(|entry| entry.epoch <= epoch);
        match (
            newer.checked_sub(1).map(|floor| self.entries[floor]),
            self.entries.get(newer),
        ) {
            (Some(floor), None) if floor.epoch == epoch => (epoch, log_end_offset),
            (_, None) => (UNDEFINED_EPOCH, UNDEFINED_EPOCH_OFFSET),
            (None, Some(first)) => (epoch, first.start_offset),
            (Some(floor), Some(next)) => (floor.epoch, next.start_offset),
        }
    }

    /// The epoch that `offset` was (or would be) written in; `None` before the first entry.
    pub fn epoch_for(&self, offset: i64) -> Option<i32> {
        let after = self
            .entries
            .partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// Drops what starts at or after `end_offset` (the log was truncated to it); true where that changed something.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let keep = self
            .entries
            .partition_point(|entry| entry.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Drops epochs that ended at or before `start_offset` (the log's new start); the one that covers it starts there from now on. True where that changed something.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let covered = self
            .entries
            .partition_point(|entry| entry.start_offset <= start_offset);
        let Some(covering) = covered.checked_sub(1) else {
            return false;
        };
        let changed = covering > 0 || self.entries[covering].start_offset != start_offset;
        self.entries.drain(..covering);
        self.entries[0].start_offset = start_offset;
        changed
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    //! Proves: the cache answers as a list of every batch's epoch would, under any appends and truncations.

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append { epoch_by: i32, count: i64 },
        TruncateEnd(i64),
        TruncateStart(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0i32..3, 1i64..20).prop_map(|(epoch_by, count)| Step::Append { epoch_by, count }),
            1 => (0i64..200).prop_map(Step::TruncateEnd),
            1 => (0i64..200).prop_map(Step::TruncateStart),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn answers_as_a_list_of_all_epochs_would(steps in steps()) {
            // The model: the epoch of every offset from `start` on.
            let mut start = 0i64;
            let mut log: Vec<i32> = Vec::new();
            let mut epoch = 0;
            let mut cache = LeaderEpochs::new();
            for step in steps {
                let end = start + log.len() as i64;
                match step {
                    Step::Append { epoch_by, count } => {
                        epoch += epoch_by;
                        cache.assign(epoch, end);
                        log.extend(std::iter::repeat_n(epoch, count as usize));
                    }
                    Step::TruncateEnd(to) => {
                        let to = to.clamp(start, end);
                        cache.truncate_from_end(to);
                        log.truncate((to - start) as usize);
                    }
                    Step::TruncateStart(to) => {
                        let to = to.clamp(start, end);
                        cache.truncate_from_start(to);
                        log.drain(..(to - start) as usize);
                        start = to;
                    }
                }
                let end = start + log.len() as i64;
                for (index, epoch) in log.iter().enumerate() {
                    prop_assert_eq!(cache.epoch_for(start + index as i64), Some(*epoch));
                }
                if log.is_empty() {
                    continue;
                }
                for asked in 0..=epoch + 1 {
                    let (found, offset) = cache.end_offset_for(asked, end);
                    let newest = cache.latest_epoch().expect("not empty");
                    if asked > newest {
                        prop_assert_eq!((found, offset), (UNDEFINED_EPOCH, UNDEFINED_EPOCH_OFFSET));
                        continue;
                    }
                    // Where the first record of a newer epoch stands, else the end.
                    let expected = log.iter().position(|epoch| *epoch > asked).map_or(end, |index| start + index as i64);
                    prop_assert_eq!(offset, expected);
                    let known = log.iter().rev().find(|epoch| **epoch <= asked).copied();
                    prop_assert_eq!(found, known.unwrap_or(asked));
                }
                prop_assert_eq!(&LeaderEpochs::from_entries(cache.entries().iter().copied()), &cache);
                prop_assert!(cache.entries().is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
            }
        }

        #[test]
        fn entries_increase_whatever_is_assigned(assigned in prop::collection::vec((any::<i32>(), any::<i64>()), 0..50)) {
            let cache = LeaderEpochs::from_entries(assigned.into_iter().map(|(epoch, start_offset)| EpochEntry { epoch, start_offset }));
            prop_assert!(cache.entries().is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset));
            prop_assert!(cache.entries().iter().all(|entry| entry.epoch >= 0 && entry.start_offset >= 0));
        }
    }

    #[test]
    fn within_one_epoch_nothing_changes() {
        let mut cache = LeaderEpochs::new();
        assert!(cache.assign(3, 10));
        assert!(!cache.assign(3, 11));
        assert!(!cache.assign(3, 10));
        // The same epoch from an earlier offset: the later start was wrong.
        assert!(cache.assign(3, 5));
        assert_eq!(
            cache.entries(),
            [EpochEntry {
                epoch: 3,
                start_offset: 5
            }]
        );
        assert!(!cache.assign(-1, 20));
    }

    #[test]
    fn an_epoch_nobody_wrote_in_ends_where_the_next_begins() {
        let cache =
            LeaderEpochs::from_entries([(1, 0), (4, 20), (7, 30)].map(|(epoch, start_offset)| {
                EpochEntry {
                    epoch,
                    start_offset,
                }
            }));
        assert_eq!(cache.end_offset_for(0, 40), (0, 0));
        assert_eq!(cache.end_offset_for(1, 40), (1, 20));
        assert_eq!(cache.end_offset_for(3, 40), (1, 20));
        assert_eq!(cache.end_offset_for(5, 40), (4, 30));
        assert_eq!(cache.end_offset_for(7, 40), (7, 40));
        assert_eq!(cache.end_offset_for(8, 40), (-1, -1));
        assert_eq!(cache.end_offset_for(-1, 40), (-1, -1));
    }
}
