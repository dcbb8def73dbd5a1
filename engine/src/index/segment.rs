//! The indexes of one segment together, and the rule when a batch gets an entry.
//!
//! Kafka's rule: an entry whenever more than `index.interval.bytes` were appended since the last one. The same rule rebuilds indexes when a segment is scanned after a
//! crash, so a rebuilt index equals the one that was lost. A full index does not fail an append: it asks for a roll and entries are left out meanwhile.

use super::{
    IndexError, OffsetIndex, TIME_ENTRY_BYTES, TimeEntry, TimeIndex, TransactionIndex, relative,
};
use crate::batch::{BatchHeader, NO_TIMESTAMP};

/// Topic settings that indexes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexSettings {
    /// `index.interval.bytes` (4096).
    pub interval_bytes: u32,
    /// `segment.index.bytes` (10 MiB): limit of each index.
    pub index_bytes_max: u32,
}

impl IndexSettings {
    /// The same, with entries so far apart that the indexes of `size` bytes of batches are not full before these end.
    pub fn spread_over(self, size: u64) -> Self {
        let entries = u64::from(self.index_bytes_max) / TIME_ENTRY_BYTES as u64;
        // One place is kept for sealing, and an index is full when it has no other.
        let interval = size.div_ceil(entries.saturating_sub(2).max(1));
        Self {
            interval_bytes: self
                .interval_bytes
                .max(interval.try_into().unwrap_or(u32::MAX)),
            ..self
        }
    }
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self {
            interval_bytes: 4096,
            index_bytes_max: 10 * 1024 * 1024,
        }
    }
}

/// The indexes of one segment, fed batch by batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndexes {
    /// Offset → position.
    pub offsets: OffsetIndex,
    /// Timestamp → offset.
    pub times: TimeIndex,
    /// Aborted transactions.
    pub transactions: TransactionIndex,
    interval_bytes: u32,
    bytes_since_entry: u32,
    max_timestamp: i64,
    max_timestamp_offset: i64,
}

impl SegmentIndexes {
    /// Empty indexes of the segment at `base_offset`.
    pub fn new(base_offset: i64, settings: IndexSettings) -> Self {
        Self {
            offsets: OffsetIndex::new(base_offset, settings.index_bytes_max),
            times: TimeIndex::new(base_offset, settings.index_bytes_max),
            transactions: TransactionIndex::new(),
            interval_bytes: settings.interval_bytes,
            bytes_since_entry: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: base_offset,
        }
    }

    /// From decoded indexes. The largest timestamp is the time index's last; batches after the last offset entry are to be fed again by [`SegmentIndexes::on_append`].
    pub fn from_parts(
        offsets: OffsetIndex,
        times: TimeIndex,
        transactions: TransactionIndex,
        settings: IndexSettings,
    ) -> Self {
        let TimeEntry { timestamp, offset } = times.last();
        Self {
            offsets,
            times,
            transactions,
            interval_bytes: settings.interval_bytes,
            bytes_since_entry: 0,
            max_timestamp: timestamp,
            max_timestamp_offset: offset,
        }
    }

    /// Notes a batch appended at `position` of the segment; gives it entries where the interval is reached.
    ///
    /// Errors only where the batch does not belong into this segment: its offset overflows 32 bits, or is not above the last entry's.
    pub fn on_append(&mut self, header: &BatchHeader, position: u32) -> Result<(), IndexError> {
        relative(header.last_offset(), self.offsets.base_offset())?;
        // The timestamp counts first: an entry promises that later records alone are newer.
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        if self.bytes_since_entry > self.interval_bytes {
            match self.offsets.append(header.last_offset(), position) {
                Ok(()) | Err(IndexError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            match self
                .times
                .maybe_append(self.max_timestamp, self.max_timestamp_offset, false)
            {
                Ok(()) | Err(IndexError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
            self.bytes_since_entry = 0;
        }
        let size = u32::try_from(header.size()).unwrap_or(u32::MAX);
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(size);
        Ok(())
    }

    /// How many entries the offset, the time and the transaction index have.
    pub fn entry_counts(&self) -> [usize; 3] {
        let transactions = self.transactions.entries().len();
        [self.offsets.len(), self.times.len(), transactions]
    }

    /// Whether the segment should be rolled because an index is full.
    pub fn is_full(&self) -> bool {
        self.offsets.is_full() || self.times.is_full()
    }

    /// Adds the segment's largest timestamp to the time index (when it is rolled or cleanly closed) and gives back spare memory. Whoever reads the index back
    /// takes its last entry for the largest timestamp, so in a full one it takes the last place.
    pub fn seal(&mut self) -> Result<(), IndexError> {
        let (timestamp, offset) = (self.max_timestamp, self.max_timestamp_offset);
        if timestamp > NO_TIMESTAMP {
            match self.times.maybe_append(timestamp, offset, true) {
                Err(IndexError::Full { .. }) => self.times.replace_last(timestamp, offset)?,
                other => other?,
            }
        }
        self.offsets.shrink();
        self.times.shrink();
        Ok(())
    }

    /// Largest timestamp in the segment and the last offset of the first batch that has it; -1 where there is none.
    pub fn max_timestamp(&self) -> TimeEntry {
        TimeEntry {
            timestamp: self.max_timestamp,
            offset: self.max_timestamp_offset,
        }
    }

    /// The segment now ends before `offset`. Entries from there on are dropped.
    ///
    /// Returns where to scan from: batches from that position on are to be fed again by [`SegmentIndexes::on_append`], because the largest timestamp may have been among what was cut away.
    pub fn truncate_to(&mut self, offset: i64) -> u32 {
        self.offsets.truncate_to(offset);
        self.times.truncate_to(offset);
        self.transactions.truncate_to(offset);
        // The last entries go as well and are made again by the rescan, which starts at the batch they named.
        let resume = self.offsets.last();
        if let Some(entry) = resume {
            self.offsets.truncate_to(entry.offset);
            self.times.truncate_to(entry.offset);
        } else {
            self.times.truncate_to(self.offsets.base_offset());
        }
        let TimeEntry { timestamp, offset } = self.times.last();
        self.max_timestamp = timestamp;
        self.max_timestamp_offset = offset;
        // So that the batch at the resume point gets its entry again.
        self.bytes_since_entry = if resume.is_some() {
            self.interval_bytes.saturating_add(1)
        } else {
            0
        };
        resume.map_or(0, |entry| entry.position)
    }
}
