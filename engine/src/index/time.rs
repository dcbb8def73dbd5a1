//! The time index: largest timestamp so far (i64, ms) → relative offset of the record that has it (i32), both big endian.
//!
//! An entry (t, o) promises that every record with a timestamp above t lies after offset o. Timestamps strictly increase, offsets do not fall.

use super::{IndexError, relative};
use crate::batch::NO_TIMESTAMP;

/// Bytes of a stored entry.
pub const TIME_ENTRY_BYTES: usize = 12;

/// A timestamp and the offset of the record that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// Timestamp in ms; -1 where there is none.
    pub timestamp: i64,
    /// Offset of the record (Kafka: of the last record of its batch).
    pub offset: i64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeIndex {
    base_offset: i64,
    bytes_max: u32,
    // Two columns: 12 bytes an entry instead of a padded 16.
    timestamps: Vec<i64>,
    offsets: Vec<i32>,
}

impl TimeIndex {
    /// An empty index of the segment at `base_offset`; `bytes_max` is `segment.index.bytes`.
    pub fn new(base_offset: i64, bytes_max: u32) -> Self {
        Self {
            base_offset,
            bytes_max,
            timestamps: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Whether the segment should roll: one entry's room is kept for the last one, added on sealing.
    pub fn is_full(&self) -> bool {
        (self.timestamps.len() + 2) * TIME_ENTRY_BYTES > self.bytes_max as usize
    }

    /// The last entry; timestamp -1 at the base offset where there is none.
    pub fn last(&self) -> TimeEntry {
        match (self.timestamps.last(), self.offsets.last()) {
            (Some(&timestamp), Some(&offset)) => self.absolute(timestamp, offset),
            _ => TimeEntry {
                timestamp: NO_TIMESTAMP,
                offset: self.base_offset,
            },
        }
    }

    /// Adds (largest timestamp so far, its offset) where the timestamp is above the last entry's; does nothing where it is equal.
    ///
    /// `sealing`: may use the room kept for the last entry. Errors: full, offset out of range, or falling values.
    pub fn maybe_append(
        &mut self,
        timestamp: i64,
        offset: i64,
        sealing: bool,
    ) -> Result<(), IndexError> {
        let last = self.last();
        if timestamp == last.timestamp {
            return Ok(());
        }
        let relative = relative(offset, self.base_offset)?;
        if timestamp < last.timestamp || offset < last.offset {
            return Err(IndexError::NotIncreasing { offset });
        }
        if self.is_full()
            && !(sealing && (self.len() + 1) * TIME_ENTRY_BYTES <= self.bytes_max as usize)
        {
            return Err(IndexError::Full {
                bytes_max: self.bytes_max,
            });
        }
        self.timestamps.push(timestamp);
        self.offsets.push(relative);
        Ok(())
    }

    /// Puts (largest timestamp so far, its offset) in the place of the last entry, for want of room. What lies between that one and the entry before
    /// it is then found from there: the promise holds, lookups go a little further.
    pub(super) fn replace_last(&mut self, timestamp: i64, offset: i64) -> Result<(), IndexError> {
        self.timestamps.pop();
        self.offsets.pop();
        self.maybe_append(timestamp, offset, true)
    }

    /// The last entry with a timestamp ≤ `timestamp`; timestamp -1 at the base offset where there is none.
    /// To find the first record at or after T, ask for T - 1 and scan from the offset given.
    pub fn lookup(&self, timestamp: i64) -> TimeEntry {
        self.lookup_before(timestamp, i64::MAX)
    }

    /// The same among the entries whose offset lies before `limit`.
    pub fn lookup_before(&self, timestamp: i64, limit: i64) -> TimeEntry {
        let limit = limit.saturating_sub(self.base_offset);
        let older = self.timestamps.partition_point(|&entry| entry <= timestamp);
        let before = self
            .offsets
            .partition_point(|&entry| i64::from(entry) < limit);
        match older.min(before).checked_sub(1) {
            Some(index) => self.absolute(self.timestamps[index], self.offsets[index]),
            None => TimeEntry {
                timestamp: NO_TIMESTAMP,
                offset: self.base_offset,
            },
        }
    }

    /// Drops entries for `offset` and later (the segment now ends before it).
    pub fn truncate_to(&mut self, offset: i64) {
        let end = offset.saturating_sub(self.base_offset);
        let keep = self
            .offsets
            .partition_point(|&entry| i64::from(entry) < end);
        self.timestamps.truncate(keep);
        self.offsets.truncate(keep);
    }

    /// Gives back memory that is held for entries to come.
    pub fn shrink(&mut self) {
        self.timestamps.shrink_to_fit();
        self.offsets.shrink_to_fit();
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len() * TIME_ENTRY_BYTES);
        for (timestamp, offset) in self.timestamps.iter().zip(&self.offsets) {
            bytes.extend_from_slice(&timestamp.to_be_bytes());
            bytes.extend_from_slice(&offset.to_be_bytes());
        }
        bytes
    }

    /// From a file's bytes; trailing zero entries are left out.
    ///
    /// Errors with [`IndexError::Damaged`] where the entries cannot be an index of this segment.
    pub fn decode(base_offset: i64, bytes_max: u32, bytes: &[u8]) -> Result<Self, IndexError> {
        let (chunks, rest) = bytes.as_chunks::<TIME_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Damaged {
                at: bytes.len(),
                reason: "size is not a multiple of 12",
            });
        }
        let used = chunks
            .iter()
            .rposition(|entry| *entry != [0; TIME_ENTRY_BYTES])
            .map_or(0, |last| last + 1);
        let mut index = Self::new(base_offset, bytes_max);
        index.timestamps.reserve_exact(used);
        index.offsets.reserve_exact(used);
        for (number, chunk) in chunks[..used].iter().enumerate() {
            let (timestamp, offset) = decode_entry(chunk);
            let at = number * TIME_ENTRY_BYTES;
            if timestamp < 0 || offset < 0 || base_offset.checked_add(i64::from(offset)).is_none() {
                return Err(IndexError::Damaged {
                    at,
                    reason: "an entry is out of range",
                });
            }
            if index
                .timestamps
                .last()
                .is_some_and(|&last| timestamp <= last)
                || index.offsets.last().is_some_and(|&last| offset < last)
            {
                return Err(IndexError::Damaged {
                    at,
                    reason: "entries do not increase",
                });
            }
            index.timestamps.push(timestamp);
            index.offsets.push(offset);
        }
        Ok(index)
    }

    fn absolute(&self, timestamp: i64, offset: i32) -> TimeEntry {
        TimeEntry {
            timestamp,
            offset: self.base_offset + i64::from(offset),
        }
    }
}

/// A stored entry as (timestamp, relative offset).
pub(super) fn decode_entry(raw: &[u8; TIME_ENTRY_BYTES]) -> (i64, i32) {
    let [t0, t1, t2, t3, t4, t5, t6, t7, o0, o1, o2, o3] = *raw;
    (
        i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        i32::from_be_bytes([o0, o1, o2, o3]),
    )
}
