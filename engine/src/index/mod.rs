//! A segment's sparse indexes in Kafka's own formats: offset (`.index`), time (`.timeindex`), aborted transactions (`.txnindex`).
//!
//! Pure: entries are kept in memory while a segment is active and encoded as bytes for whoever writes files. An index is a hint: lookups say where to begin to scan, and
//! whoever reads must find a batch header there that agrees. A damaged index never decodes; it is rebuilt from the log. The memory of an index without entries is its struct alone.

mod offset;
mod segment;
mod stored;
mod time;
mod transaction;

pub use offset::{OFFSET_ENTRY_BYTES, OffsetEntry, OffsetIndex};
pub use segment::{IndexSettings, SegmentIndexes};
pub use stored::{BlockRead, StoredEntry, StoredLookup};
pub use time::{TIME_ENTRY_BYTES, TimeEntry, TimeIndex};
pub use transaction::{ABORTED_ENTRY_BYTES, AbortedTransaction, TransactionIndex};

/// Why an index cannot take an entry or be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// `segment.index.bytes` is used up: the segment is to be rolled.
    #[error("index is full (segment.index.bytes={bytes_max}); roll the segment")]
    Full {
        /// The limit in bytes.
        bytes_max: u32,
    },
    /// The offset does not fit 32 bits relative to the segment's base: the segment is to be rolled first.
    #[error(
        "offset {offset} does not fit an index of base offset {base_offset}; roll the segment first"
    )]
    RelativeOverflow {
        /// Offset to index.
        offset: i64,
        /// Base offset of the segment.
        base_offset: i64,
    },
    /// The entry is not larger than the last one.
    #[error("index entry for offset {offset} does not follow the last entry")]
    NotIncreasing {
        /// Offset to index.
        offset: i64,
    },
    /// The stored bytes are no index of this segment: rebuild it from the log.
    #[error("index is damaged at byte {at}: {reason}; it is to be rebuilt from the log")]
    Damaged {
        /// Where in the file.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// `offset` relative to `base_offset`, where it fits Kafka's signed 32 bits.
pub(crate) fn relative(offset: i64, base_offset: i64) -> Result<i32, IndexError> {
    offset
        .checked_sub(base_offset)
        .filter(|relative| *relative >= 0)
        .and_then(|relative| i32::try_from(relative).ok())
        .ok_or(IndexError::RelativeOverflow {
            offset,
            base_offset,
        })
}

#[cfg(test)]
mod tests;
