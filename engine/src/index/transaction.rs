//! The transaction index: the aborted transactions of a segment, so that read_committed consumers can leave their records out (KIP-98).
//!
//! Stored entries are version i16 (0), producer id, first offset, last offset, last stable offset (i64 each), big endian, ordered by last offset.

use super::IndexError;

/// Bytes of a stored entry.
pub const ABORTED_ENTRY_BYTES: usize = 34;

/// One aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: i64,
    /// First offset the transaction wrote to the partition.
    pub first_offset: i64,
    /// Offset of its abort marker.
    pub last_offset: i64,
    /// Last stable offset when the marker was written.
    pub last_stable_offset: i64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionIndex {
    entries: Vec<AbortedTransaction>,
}

impl TransactionIndex {
    /// An empty index.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// The entries in order of their last offset.
    pub fn entries(&self) -> &[AbortedTransaction] {
        &self.entries
    }

    /// Adds an entry; its last offset must be above all others'.
    pub fn append(&mut self, entry: AbortedTransaction) -> Result<(), IndexError> {
        if self
            .entries
            .last()
            .is_some_and(|last| entry.last_offset <= last.last_offset)
        {
            return Err(IndexError::NotIncreasing {
                offset: entry.last_offset,
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Aborted transactions with records in `from..to`.
    pub fn overlapping(&self, from: i64, to: i64) -> impl Iterator<Item = &AbortedTransaction> {
        let first = self
            .entries
            .partition_point(|entry| entry.last_offset < from);
        self.entries[first..]
            .iter()
            .filter(move |entry| entry.first_offset < to)
    }

    /// Adds the transactions with records in `from..to` to `found`; true when no later segment's index can have more of them, because everything before `to` was decided.
    pub fn collect(&self, from: i64, to: i64, found: &mut Vec<AbortedTransaction>) -> bool {
        let first = self
            .entries
            .partition_point(|entry| entry.last_offset < from);
        for entry in &self.entries[first..] {
            if entry.first_offset < to {
                found.push(*entry);
            }
            if entry.last_stable_offset >= to {
                return true;
            }
        }
        false
    }

    /// The lowest first offset of its transactions; the largest number there is where it has none.
    pub fn lowest_first_offset(&self) -> i64 {
        let first = self.entries.iter().map(|entry| entry.first_offset);
        first.min().unwrap_or(i64::MAX)
    }

    /// Drops entries whose marker is at `offset` or later.
    pub fn truncate_to(&mut self, offset: i64) {
        let keep = self
            .entries
            .partition_point(|entry| entry.last_offset < offset);
        self.entries.truncate(keep);
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ABORTED_ENTRY_BYTES);
        for entry in &self.entries {
            bytes.extend_from_slice(&0i16.to_be_bytes());
            for field in [
                entry.producer_id,
                entry.first_offset,
                entry.last_offset,
                entry.last_stable_offset,
            ] {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
        }
        bytes
    }

    /// From a file's bytes; errors with [`IndexError::Damaged`].
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let (chunks, rest) = bytes.as_chunks::<ABORTED_ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(IndexError::Damaged {
                at: bytes.len(),
                reason: "size is not a multiple of 34",
            });
        }
        let mut index = Self {
            entries: Vec::with_capacity(chunks.len()),
        };
        for (number, chunk) in chunks.iter().enumerate() {
            let at = number * ABORTED_ENTRY_BYTES;
            if chunk[..2] != [0, 0] {
                return Err(IndexError::Damaged {
                    at,
                    reason: "entry version is not 0",
                });
            }
            let (fields, _) = chunk[2..].as_chunks::<8>();
            let field = |n: usize| fields.get(n).map_or(0, |raw| i64::from_be_bytes(*raw));
            let entry = AbortedTransaction {
                producer_id: field(0),
                first_offset: field(1),
                last_offset: field(2),
                last_stable_offset: field(3),
            };
            if entry.first_offset < 0 || entry.first_offset > entry.last_offset {
                return Err(IndexError::Damaged {
                    at,
                    reason: "offsets contradict each other",
                });
            }
            index.append(entry).map_err(|_| IndexError::Damaged {
                at,
                reason: "entries do not increase",
            })?;
        }
        Ok(index)
    }
}
