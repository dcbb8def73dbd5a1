//! The words of the log's interface: what identifies a log, what an append and a read answer, and the ways in which
//! they refuse. Plain values; each error says what to do next.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

use crate::batch::BatchError;
use crate::producer_state::SequenceError;

/// A topic's id: sixteen bytes, printed as Kafka prints them (URL-safe base64 without padding).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub [u8; 16]);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(22);
        for group in self.0.chunks(3) {
            let word = (0..3).fold(0u32, |word, i| {
                (word << 8) | u32::from(group.get(i).copied().unwrap_or(0))
            });
            for digit in 0..=group.len() {
                text.push(BASE64_URL[(word >> (18 - 6 * digit)) as usize & 63] as char);
            }
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TopicId {
    /// Reads what `Display` prints.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut bits = 0u32;
        let mut held = 0;
        let mut id = [0u8; 16];
        let mut next = 0;
        for byte in text.bytes() {
            let digit = BASE64_URL.iter().position(|&b| b == byte)?;
            bits = (bits << 6) | digit as u32;
            held += 6;
            if held >= 8 {
                held -= 8;
                *id.get_mut(next)? = (bits >> held) as u8;
                next += 1;
                bits &= (1 << held) - 1;
            }
        }
        (next == 16 && bits == 0).then_some(Self(id))
    }
}

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// What an accepted append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: i64,
    /// The offset of its last record; wait for `last_offset + 1` to be flushed before acknowledging.
    pub last_offset: i64,
    /// The time the log gave the batch (milliseconds since the epoch), with `LogAppendTime` only.
    pub log_append_time: Option<i64>,
    /// The log start offset when the batch was appended.
    pub log_start_offset: i64,
    /// Whether the batch was there already: the offsets are then those of the original.
    pub duplicate: bool,
}

/// Why an append was refused. No offset was given out.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batch breaks one of the rules for produced batches.
    #[error("the batch is refused: {0}")]
    Batch(#[from] BatchError),
    /// The producer's epoch, sequence or transaction does not fit what the log remembers of it.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// Offsets given with the batches do not continue the log (append with given offsets only).
    #[error("batches given start at offset {given}, the log ends at {log_end}")]
    OffsetsNotContinuing {
        /// First offset given.
        given: i64,
        /// The log's end.
        log_end: i64,
    },
    /// The batch is of an older leader epoch than the log's last one.
    #[error("leader epoch {given} is older than {latest}, in which the log was last written")]
    StaleLeaderEpoch {
        /// The batch's epoch.
        given: i32,
        /// The log's newest epoch.
        latest: i32,
    },
    /// The batch can never fit, whatever is free.
    #[error(
        "the batch of {size} bytes is larger than the {limit} bytes that a segment or the tail cache can take"
    )]
    TooLarge {
        /// The batch's size, bytes.
        size: usize,
        /// What is possible.
        limit: u64,
    },
    /// No space for it on the log's or the journal's disk.
    #[error("no space left for {0}: free space or add retention; appends resume by themselves")]
    StorageFull(String),
    /// The log no longer takes part.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why a log does not answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The log is offline until the broker is started again.
    #[error("{log} is offline: {reason}")]
    Offline {
        /// Which log.
        log: String,
        /// What happened and what to do.
        reason: Arc<str>,
    },
    /// The log was deleted.
    #[error("{0} was deleted")]
    Deleted(String),
    /// The log was truncated below the offset that was waited for.
    #[error("{log} was truncated to {end_offset}")]
    Truncated {
        /// Which log.
        log: String,
        /// Where it ends now.
        end_offset: i64,
    },
    /// The disk refused an operation on the log's files.
    #[error("{log}: {operation} failed: {error}")]
    Storage {
        /// Which log.
        log: String,
        /// What was tried.
        operation: &'static str,
        /// The operating system's words.
        error: String,
        /// What kind of error it is, if it may pass by itself: space or descriptors are missing.
        may_pass: Option<std::io::ErrorKind>,
    },
}

impl LogError {
    /// Nothing is taken any more, because the broker stops.
    pub(crate) fn stopping(log: &TopicPartition) -> Self {
        Self::Offline {
            log: log.to_string(),
            reason: "the broker is stopping".into(),
        }
    }
}

/// How far a read may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLimit {
    /// Up to the high watermark: consumers.
    HighWatermark,
    /// Up to the last stable offset: consumers that read what is committed.
    LastStableOffset,
    /// Up to the flushed offset.
    Flushed,
    /// Up to the log end: replicas.
    LogEnd,
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct ReadResult {
    /// Whole batches, in order, as slices of memory that nobody changes.
    pub pieces: Vec<Bytes>,
    /// Base offset of the first batch (may lie before the asked offset); absent when nothing was read.
    pub first_base_offset: Option<i64>,
    /// Offset after the last record read; the asked offset when nothing was read.
    pub next_offset: i64,
    /// The log's high watermark.
    pub high_watermark: i64,
    /// The offset before which every transaction is decided.
    pub last_stable_offset: i64,
    /// The log's start offset.
    pub log_start_offset: i64,
}

impl ReadResult {
    /// Total bytes of the pieces.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Why a read was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is before the log's start or past its limit.
    #[error("offset {offset} is outside {log_start_offset}..={limit}")]
    OffsetOutOfRange {
        /// What was asked.
        offset: i64,
        /// Where the log starts.
        log_start_offset: i64,
        /// How far the read might have seen.
        limit: i64,
        /// The high watermark.
        high_watermark: i64,
        /// The offset before which every transaction is decided.
        last_stable_offset: i64,
    },
    /// What was read is not what was written.
    #[error("{log} is damaged at offset {offset}: {reason}; restore the segment from another copy")]
    Corrupt {
        /// Which log.
        log: String,
        /// Where.
        offset: i64,
        /// How it shows.
        reason: String,
    },
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl ReadError {
    /// What kind of error it is, if it may pass by itself: space or descriptors are missing.
    pub(crate) fn may_pass(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Log(LogError::Storage { may_pass, .. }) => *may_pass,
            _ => None,
        }
    }

    /// For those that know only errors of the disk; the kind stays where it may pass.
    pub(crate) fn into_io(self) -> std::io::Error {
        let kind = self.may_pass().unwrap_or(std::io::ErrorKind::Other);
        std::io::Error::new(kind, self)
    }
}

/// A timestamp and the offset that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Milliseconds since the epoch; −1: unknown.
    pub timestamp: i64,
    /// The offset.
    pub offset: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

#[cfg(test)]
mod tests {
    //! A topic id prints as Kafka prints it and reads back.
    use super::*;

    #[test]
    fn topic_ids_round_trip() {
        assert_eq!(TopicId([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let id = TopicId(std::array::from_fn(|i| (i * 37 + 11) as u8));
        assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        assert_eq!(TopicId::parse("AAAAAAAAAAAAAAAAAAAAAB"), None);
        assert_eq!(TopicId::parse("short"), None);
    }
}
