//! Looks up an index that lies in a file, reading a few blocks of it instead of loading it.
//!
//! A search without I/O: it says which block it needs next, is given the bytes, and ends with the floor entry. A file of n blocks takes at most log2(n) + 1 reads. Every block
//! is checked as it is read; damage ends the search with [`IndexError::Damaged`], and the index is to be rebuilt.

use super::{
    IndexError, OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry, offset, time,
};
use crate::batch::NO_TIMESTAMP;

/// An entry of an index that can be searched in its file.
pub trait StoredEntry: Copy {
    /// Bytes of a stored entry.
    const BYTES: usize;
    /// Bytes of a block: a multiple of the entry size and of 4096.
    const BLOCK_BYTES: usize;
    /// What is found where no entry is small enough.
    fn floor(base_offset: i64) -> Self;
    /// From exactly [`StoredEntry::BYTES`] bytes; `None` where they cannot be an entry.
    fn decode(base_offset: i64, raw: &[u8]) -> Option<Self>;
    /// What is searched by.
    fn key(&self) -> i64;
    /// Whether it may stand right after `previous`.
    fn may_follow(&self, previous: &Self) -> bool;
}

impl StoredEntry for OffsetEntry {
    const BYTES: usize = OFFSET_ENTRY_BYTES;
    const BLOCK_BYTES: usize = 4096;

    fn floor(base_offset: i64) -> Self {
        Self {
            offset: base_offset,
            position: 0,
        }
    }

    fn decode(base_offset: i64, raw: &[u8]) -> Option<Self> {
        let (relative, position) = offset::decode_entry(raw.first_chunk()?);
        if relative < 0 || i32::try_from(position).is_err() {
            return None;
        }
        Some(Self {
            offset: base_offset.checked_add(i64::from(relative))?,
            position,
        })
    }

    fn key(&self) -> i64 {
        self.offset
    }

    fn may_follow(&self, previous: &Self) -> bool {
        self.offset > previous.offset && self.position > previous.position
    }
}

impl StoredEntry for TimeEntry {
    const BYTES: usize = TIME_ENTRY_BYTES;
    // The smallest multiple of 4096 that holds whole entries.
    const BLOCK_BYTES: usize = 3 * 4096;

    fn floor(base_offset: i64) -> Self {
        Self {
            timestamp: NO_TIMESTAMP,
            offset: base_offset,
        }
    }

    fn decode(base_offset: i64, raw: &[u8]) -> Option<Self> {
        let (timestamp, relative) = time::decode_entry(raw.first_chunk()?);
        if timestamp < 0 || relative < 0 {
            return None;
        }
        Some(Self {
            timestamp,
            offset: base_offset.checked_add(i64::from(relative))?,
        })
    }

    fn key(&self) -> i64 {
        self.timestamp
    }

    fn may_follow(&self, previous: &Self) -> bool {
        self.timestamp > previous.timestamp && self.offset >= previous.offset
    }
}

/// A block that a search needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRead {
    /// Position in the index file in bytes, a multiple of 4096.
    pub position: u64,
    /// Bytes needed from there; fewer than a block only at the end of the file.
    pub length: usize,
}

/// A search for the largest entry whose key is at or below a target. See the module.
#[derive(Clone, Debug)]
pub struct StoredLookup<E> {
    base_offset: i64,
    target: i64,
    file_bytes: u64,
    /// Blocks still in question: `low..high`.
    low: u64,
    high: u64,
    best: E,
}

impl<E: StoredEntry> StoredLookup<E> {
    /// Begins a search in an index file of `file_bytes` of the segment at `base_offset`, for an offset (`E` = [`OffsetEntry`]) or a timestamp in ms (`E` = [`TimeEntry`]).
    pub fn new(base_offset: i64, file_bytes: u64, target: i64) -> Result<Self, IndexError> {
        if !file_bytes.is_multiple_of(E::BYTES as u64) {
            let at = usize::try_from(file_bytes).unwrap_or(usize::MAX);
            return Err(IndexError::Damaged {
                at,
                reason: "size is not a multiple of the entry size",
            });
        }
        let high = file_bytes.div_ceil(E::BLOCK_BYTES as u64);
        Ok(Self {
            base_offset,
            target,
            file_bytes,
            low: 0,
            high,
            best: E::floor(base_offset),
        })
    }

    /// The block needed next; `None` once [`StoredLookup::found`] is final.
    pub fn next_read(&self) -> Option<BlockRead> {
        (self.low < self.high).then(|| {
            let position = self.middle() * E::BLOCK_BYTES as u64;
            let length = (self.file_bytes - position).min(E::BLOCK_BYTES as u64) as usize;
            BlockRead { position, length }
        })
    }

    /// Takes the bytes of the block asked for by [`StoredLookup::next_read`]; more than asked for are ignored.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        let Some(read) = self.next_read() else {
            return Ok(());
        };
        let at = usize::try_from(read.position).unwrap_or(usize::MAX);
        let block = bytes.get(..read.length).ok_or(IndexError::Damaged {
            at,
            reason: "the file is cut off",
        })?;
        let mut last: Option<E> = None;
        let mut found = None;
        for (number, raw) in block.chunks_exact(E::BYTES).enumerate() {
            let at = at.saturating_add(number * E::BYTES);
            let entry = E::decode(self.base_offset, raw).ok_or(IndexError::Damaged {
                at,
                reason: "an entry is out of range",
            })?;
            if last.is_some_and(|last| !entry.may_follow(&last)) {
                return Err(IndexError::Damaged {
                    at,
                    reason: "entries do not increase",
                });
            }
            if entry.key() <= self.target {
                found = Some(entry);
            }
            last = Some(entry);
        }
        let middle = self.middle();
        match (found, last) {
            (None, _) | (_, None) => self.high = middle,
            (Some(found), Some(last)) => {
                self.best = found;
                // Only where the block's last entry is small enough can the next block have a better one.
                (self.low, self.high) = if found.key() == last.key() {
                    (middle + 1, self.high)
                } else {
                    (0, 0)
                };
            }
        }
        Ok(())
    }

    /// The largest entry at or below the target among what was read; the segment's start where there is none.
    pub fn found(&self) -> E {
        self.best
    }

    fn middle(&self) -> u64 {
        self.low + (self.high - self.low) / 2
    }
}
