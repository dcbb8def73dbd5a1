//! The offset index: relative offset of a batch's last record (i32) → position of the batch in the segment (i32), both big endian.
//!
//! Entries strictly increase in both columns. Lookup is a floor search. Kept as 8 bytes an entry, allocated only once there are entries.

use super::{IndexError, relative};

/// Bytes of a stored entry.
pub const OFFSET_ENTRY_BYTES: usize = 8;

/// An offset and where to begin scanning for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// An offset at or below the one asked for (the last offset of the batch at `position`).
    pub offset: i64,
    /// Position of a batch in the segment, in bytes.
    pub position: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetIndex {
    base_offset: i64,
    bytes_max: u32,
    entries: Vec<(i32, u32)>,
}

impl OffsetIndex {
    /// An empty index of the segment at `base_offset`; `bytes_max` is `segment.index.bytes`.
    pub fn new(base_offset: i64, bytes_max: u32) -> Self {
        Self {
            base_offset,
            bytes_max,
            entries: Vec::new(),
        }
    }

    /// Base offset of the segment.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no further entry fits `segment.index.bytes`.
    pub fn is_full(&self) -> bool {
        (self.entries.len() + 1) * OFFSET_ENTRY_BYTES > self.bytes_max as usize
    }

    /// Whether `offset` can be indexed relative to the base offset at all.
    pub fn can_hold(&self, offset: i64) -> bool {
        relative(offset, self.base_offset).is_ok()
    }

    /// The last entry.
    pub fn last(&self) -> Option<OffsetEntry> {
        self.entries.last().map(|&entry| self.absolute(entry))
    }

    /// Adds an entry: the batch at `position` ends with `last_offset`.
    pub fn append(&mut self, last_offset: i64, position: u32) -> Result<(), IndexError> {
        let relative = relative(last_offset, self.base_offset)?;
        if self.is_full() {
            return Err(IndexError::Full {
                bytes_max: self.bytes_max,
            });
        }
        if i32::try_from(position).is_err() {
            return Err(IndexError::RelativeOverflow {
                offset: last_offset,
                base_offset: self.base_offset,
            });
        }
        if let Some(&(offset, at)) = self.entries.last()
            && (relative <= offset || position <= at)
        {
            return Err(IndexError::NotIncreasing {
                offset: last_offset,
            });
        }
        self.entries.push((relative, position));
        Ok(())
    }

    /// The largest entry at or below `offset`; the segment's start where there is none.
    pub fn lookup(&self, offset: i64) -> OffsetEntry {
        let wanted = offset.saturating_sub(self.base_offset);
        let after = self
            .entries
            .partition_point(|entry| i64::from(entry.0) <= wanted);
        match after.checked_sub(1) {
            Some(index) => self.absolute(self.entries[index]),
            None => OffsetEntry {
                offset: self.base_offset,
                position: 0,
            },
        }
    }

    /// Drops entries for `offset` and later (the segment now ends before it).
    pub fn truncate_to(&mut self, offset: i64) {
        let end = offset.saturating_sub(self.base_offset);
        let keep = self
            .entries
            .partition_point(|entry| i64::from(entry.0) < end);
        self.entries.truncate(keep);
    }

    /// Gives back memory that is held for entries to come.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * OFFSET_ENTRY_BYTES);
        for &(offset, position) in &self.entries {
            bytes.extend_from_slice(&offset.to_be_bytes());
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        bytes
    }

    /// From a file's bytes; trailing zero entries (a preallocated index of a process that stopped hard) are left out.
    ///
    /// Errors with [`IndexError::Damaged`] where the entries cannot be an index of this segment.
    pub fn decode(base_offset: i64, bytes_max: u32, bytes: &[u8]) -> Result<Self, IndexError> {
        let (chunks, rest) = bytes.as_chunks::<OFFSET_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Damaged {
                at: bytes.len(),
                reason: "size is not a multiple of 8",
            });
        }
        let used = chunks
            .iter()
            .rposition(|entry| *entry != [0; OFFSET_ENTRY_BYTES])
            .map_or(0, |last| last + 1);
        let mut entries = Vec::with_capacity(used);
        let mut last = None;
        for (index, chunk) in chunks[..used].iter().enumerate() {
            let entry = decode_entry(chunk);
            let at = index * OFFSET_ENTRY_BYTES;
            if entry.0 < 0 || i32::try_from(entry.1).is_err() {
                return Err(IndexError::Damaged {
                    at,
                    reason: "an entry is negative",
                });
            }
            if base_offset.checked_add(i64::from(entry.0)).is_none() {
                return Err(IndexError::Damaged {
                    at,
                    reason: "an offset overflows",
                });
            }
            if let Some((offset, position)) = last
                && (entry.0 <= offset || entry.1 <= position)
            {
                return Err(IndexError::Damaged {
                    at,
                    reason: "entries do not increase",
                });
            }
            last = Some(entry);
            entries.push(entry);
        }
        Ok(Self {
            base_offset,
            bytes_max,
            entries,
        })
    }

    fn absolute(&self, (offset, position): (i32, u32)) -> OffsetEntry {
        OffsetEntry {
            offset: self.base_offset + i64::from(offset),
            position,
        }
    }
}

/// A stored entry as (relative offset, position).
pub(super) fn decode_entry(raw: &[u8; OFFSET_ENTRY_BYTES]) -> (i32, u32) {
    let [o0, o1, o2, o3, p0, p1, p2, p3] = *raw;
    (
        i32::from_be_bytes([o0, o1, o2, o3]),
        u32::from_be_bytes([p0, p1, p2, p3]),
    )
}
