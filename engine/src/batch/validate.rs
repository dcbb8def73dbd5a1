//! What the leader checks before it accepts a client's batch, and what it corrects.
//!
//! The rules are Kafka's for a produce request from a client (not for batches copied from a leader). The bytes are never changed here: what has to be stored differently
//! (timestamp type, largest timestamp) is in the header that is handed back, with its checksum made anew. One pass over the records; nothing is allocated for a valid uncompressed batch.

use super::{
    MAX_RECORD_ERRORS,
    error::{BatchError, RecordError},
    header::{BatchHeader, Compression, NO_TIMESTAMP, TimestampType},
    scan::{Seen, Walk, walk},
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
    /// The request names a transactional id, so its batches may be transactional.
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

impl ProduceRules {
    /// Whether a producer's timestamp lies within bounds. None at all (-1) does; with LogAppendTime any does, because it is replaced.
    #[inline]
    fn accepts_timestamp(&self, timestamp: i64) -> bool {
        if self.timestamp_type == TimestampType::LogAppendTime || timestamp == NO_TIMESTAMP {
            return true;
        }
        let age_ms = self.now_ms.saturating_sub(timestamp);
        age_ms <= self.timestamp_before_max_ms
            && age_ms.saturating_neg() <= self.timestamp_after_max_ms
    }
}

/// A batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    /// The header to store, once [`BatchHeader::assigned`]; everything after it is stored as it came. Equal to what was sent, except where the topic wants LogAppendTime or the
    /// producer's largest timestamp was wrong: then timestamp type, largest timestamp and checksum are already those to store.
    pub header: BatchHeader,
    /// The time the broker gave the batch (LogAppendTime), else -1: what a produce response reports.
    pub log_append_time: i64,
}

/// Checks one partition's bytes of a produce request: exactly one batch.
///
/// Errors carry the protocol's number ([`BatchError::code`]) and, where single records are at fault, these ([`BatchError::record_errors`]).
pub fn validate_produce(batch: &[u8], rules: &ProduceRules) -> Result<ValidBatch, BatchError> {
    let header = BatchHeader::parse(batch)?;
    check_size(batch, &header, rules)?;
    // First of all what the checksum covers: a bit that flipped on the way is worth another try, a wrong field is not.
    if !header.checksum_matches(batch) {
        return Err(BatchError::BadChecksum {
            stored: header.checksum,
            computed: super::checksum(batch),
        });
    }
    check_header(&header, rules)?;
    let max_timestamp = check_records(batch, &header, rules)?;
    Ok(match rules.timestamp_type {
        TimestampType::LogAppendTime => ValidBatch {
            header: header.restamped(TimestampType::LogAppendTime, rules.now_ms, batch),
            log_append_time: rules.now_ms,
        },
        TimestampType::CreateTime => ValidBatch {
            header: header.restamped(TimestampType::CreateTime, max_timestamp, batch),
            log_append_time: NO_TIMESTAMP,
        },
    })
}

fn check_size(batch: &[u8], header: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchError> {
    if batch.len() < header.size() {
        return Err(BatchError::LengthMismatch {
            claimed: header.size() as i64,
            present: batch.len(),
        });
    }
    if batch.len() > header.size() {
        return Err(BatchError::TrailingBytes {
            extra: batch.len() - header.size(),
        });
    }
    if batch.len() > rules.max_message_bytes {
        return Err(BatchError::TooLarge {
            len: batch.len(),
            limit: rules.max_message_bytes,
        });
    }
    Ok(())
}

fn check_header(header: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchError> {
    let attributes = header.attributes;
    if attributes.compression()? == Compression::Zstd && !rules.zstd_allowed {
        return Err(BatchError::UnsupportedCompression {
            codec: Compression::Zstd as u8,
        });
    }
    if header.base_offset != 0 {
        return Err(BatchError::Invalid(
            "the base offset of a produced batch must be 0",
        ));
    }
    if header.record_count <= 0 {
        return Err(BatchError::Invalid("the record count must be positive"));
    }
    if i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return Err(BatchError::Invalid(
            "the record count contradicts the last offset delta",
        ));
    }
    if attributes.is_control() {
        return Err(BatchError::Invalid("clients may not write control batches"));
    }
    if attributes.has_delete_horizon() {
        return Err(BatchError::Invalid("clients may not set a delete horizon"));
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::InvalidTimestamps(vec![RecordError {
            index: 0,
            message: "producers must not set the timestamp type to LogAppendTime",
        }]));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(BatchError::Invalid(
            "a batch with a producer id needs a sequence that is not negative",
        ));
    }
    if header.has_producer_id() && header.producer_epoch < 0 {
        return Err(BatchError::Invalid(
            "a batch with a producer id needs an epoch that is not negative",
        ));
    }
    if attributes.is_transactional() {
        if !rules.transactional_allowed {
            return Err(BatchError::NotOffered(
                "a transactional batch needs the transactional id of its producer in the request",
            ));
        }
        if !header.has_producer_id() {
            return Err(BatchError::Invalid(
                "a transactional batch needs a producer id",
            ));
        }
    }
    Ok(())
}

/// Checks every record and returns the largest timestamp (of a compressed batch that is not looked into: the one it claims).
fn check_records(
    batch: &[u8],
    header: &BatchHeader,
    rules: &ProduceRules,
) -> Result<i64, BatchError> {
    let compressed = header.attributes.compression()? != Compression::None;
    if compressed && !rules.check_compressed && !rules.compacted {
        check_claimed_timestamps(header, rules)?;
        return Ok(header.max_timestamp);
    }
    let mut max_timestamp = NO_TIMESTAMP;
    let mut faults = Faults::default();
    walk(
        batch,
        header,
        rules.decompressed_bytes_max,
        |index, seen| {
            let timestamp = header.base_timestamp.wrapping_add(seen.timestamp_delta);
            max_timestamp = max_timestamp.max(timestamp);
            if let Some(fault) = check_record(index, &seen, timestamp, rules) {
                faults.note(index, fault);
            }
            if faults.is_full() {
                Walk::Stop
            } else {
                Walk::On
            }
        },
    )?;
    faults.into_result().map(|()| max_timestamp)
}

/// What can be said of a compressed batch without decompressing it.
fn check_claimed_timestamps(header: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchError> {
    if rules.accepts_timestamp(header.base_timestamp)
        && rules.accepts_timestamp(header.max_timestamp)
    {
        return Ok(());
    }
    Err(BatchError::InvalidTimestamps(vec![RecordError {
        index: 0,
        message: TIMESTAMP_OUT_OF_RANGE,
    }]))
}

#[derive(Clone, Copy)]
enum Fault {
    Record(&'static str),
    Timestamp,
}

const TIMESTAMP_OUT_OF_RANGE: &str =
    "timestamp is outside message.timestamp.before.max.ms and message.timestamp.after.max.ms";

#[inline]
fn check_record(index: i32, seen: &Seen, timestamp: i64, rules: &ProduceRules) -> Option<Fault> {
    if seen.offset_delta != index {
        return Some(Fault::Record(
            "offset deltas must count up from 0 without gaps",
        ));
    }
    if rules.compacted && !seen.has_key {
        return Some(Fault::Record(
            "a compacted topic takes no record without a key",
        ));
    }
    (!rules.accepts_timestamp(timestamp)).then_some(Fault::Timestamp)
}

/// The records at fault, up to [`MAX_RECORD_ERRORS`]; allocates only once there is one.
#[derive(Default)]
struct Faults {
    errors: Vec<RecordError>,
    any_timestamp: bool,
}

impl Faults {
    #[cold]
    fn note(&mut self, index: i32, fault: Fault) {
        let message = match fault {
            Fault::Record(message) => message,
            Fault::Timestamp => {
                self.any_timestamp = true;
                TIMESTAMP_OUT_OF_RANGE
            }
        };
        self.errors.push(RecordError { index, message });
    }

    fn is_full(&self) -> bool {
        self.errors.len() >= MAX_RECORD_ERRORS
    }

    /// A timestamp at fault decides the kind of the whole error, as in Kafka.
    fn into_result(self) -> Result<(), BatchError> {
        match (self.errors.is_empty(), self.any_timestamp) {
            (true, _) => Ok(()),
            (false, true) => Err(BatchError::InvalidTimestamps(self.errors)),
            (false, false) => Err(BatchError::InvalidRecords(self.errors)),
        }
    }
}
