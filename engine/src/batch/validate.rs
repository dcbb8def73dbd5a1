//! What the leader checks before it accepts a client's batch.

use super::{
    error::BatchError,
    header::{BatchHeader, TimestampType},
};

/// What a topic and a request allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes`: largest batch, header included.
    pub max_message_bytes: usize,
    /// The topic is compacted: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far in the past a timestamp may lie.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future.
    pub timestamp_after_max_ms: i64,
    /// Wall clock in ms.
    pub now_ms: i64,
    /// The request's version allows zstd (Produce v7 and later).
    pub zstd_allowed: bool,
    /// Transactions are offered.
    pub transactional_allowed: bool,
    /// Decompress and check the records of compressed batches, as Kafka does. A compacted topic's are always checked.
    pub check_compressed: bool,
    /// Cap on the decompressed size of one batch, in bytes.
    pub decompressed_bytes_max: usize,
}

impl Default for ProduceRules {
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            now_ms: 0,
            zstd_allowed: true,
            transactional_allowed: false,
            check_compressed: true,
            decompressed_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    /// The header to store, once [`BatchHeader::assigned`]: with LogAppendTime its timestamps, attributes and checksum are already those to store.
    pub header: BatchHeader,
    /// The time the broker gave the batch (LogAppendTime), else -1.
    pub log_append_time: i64,
}

/// Checks one partition's bytes of a produce request.
pub fn validate_produce(batch: &[u8], rules: &ProduceRules) -> Result<ValidBatch, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() > rules.max_message_bytes {
        return Err(BatchError::TooLarge {
            len: batch.len(),
            limit: rules.max_message_bytes,
        });
    }
    if batch.len() != header.size() {
        return Err(BatchError::LengthMismatch {
            claimed: header.size() as i64,
            present: batch.len(),
        });
    }
    if !header.checksum_matches(batch) {
        return Err(BatchError::BadChecksum {
            stored: header.checksum,
            computed: super::checksum(batch),
        });
    }
    Err(BatchError::Invalid(
        "records of client batches are not read yet",
    ))
}
