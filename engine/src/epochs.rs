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
