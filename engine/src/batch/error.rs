//! Why a record batch was refused.
//!
//! Each reason knows the protocol's error number, so that whoever answers a client need not classify again. The numbers are the
//! protocol's own (`org.apache.kafka.common.protocol.Errors`); this crate does not know the wire, hence plain `i16`. Nothing here formats unless somebody asks for the text.

use super::MAX_RECORD_ERRORS;

/// Protocol error numbers that validation of a batch can end in.
pub mod code {
    /// The batch is damaged or its structure contradicts itself.
    pub const CORRUPT_MESSAGE: i16 = 2;
    /// The batch is larger than `max.message.bytes` allows.
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    /// A record's timestamp lies outside what the topic accepts.
    pub const INVALID_TIMESTAMP: i16 = 32;
    /// A batch with a sequence does not continue its producer's last one.
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    /// The producer's epoch has been replaced by a newer one.
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    /// A batch that is not part of the producer's transaction, or should be.
    pub const INVALID_TXN_STATE: i16 = 48;
    /// A newer coordinator has ended a transaction of the producer.
    pub const TRANSACTION_COORDINATOR_FENCED: i16 = 52;
    /// The compression codec is not allowed for this request version.
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    /// A record breaks a rule of the topic or of the protocol.
    pub const INVALID_RECORD: i16 = 87;
    /// A limit of the broker is reached; trying later may succeed.
    pub const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
}

/// One record that made its batch unacceptable (Produce v8 and later report these).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Position of the record in its batch, from 0.
    pub index: i32,
    /// What is wrong with it, in words for the client's log.
    pub message: &'static str,
}

/// Why a record batch cannot be accepted or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a batch header has.
    #[error("record batch has {len} bytes, a header alone takes 61")]
    TooShort {
        /// Bytes present.
        len: usize,
    },
    /// The length field disagrees with the bytes present.
    #[error("record batch claims {claimed} bytes but {present} are present")]
    LengthMismatch {
        /// Whole size by the length field, header included.
        claimed: i64,
        /// Bytes present.
        present: usize,
    },
    /// Not a version 2 record batch.
    #[error(
        "record batch has magic {magic}; only 2 is supported: use a client that speaks Kafka 0.11 or later"
    )]
    UnsupportedMagic {
        /// The magic byte found.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    #[error("record batch checksum is {stored:#010x} but its bytes give {computed:#010x}")]
    BadChecksum {
        /// The header's CRC-32C.
        stored: u32,
        /// CRC-32C of attributes to the end.
        computed: u32,
    },
    /// A header field holds a value that cannot be.
    #[error("record batch header: {0}")]
    BadHeader(&'static str),
    /// More than one batch where exactly one is allowed.
    #[error(
        "{extra} bytes follow the record batch; a produce request carries exactly one batch per partition"
    )]
    TrailingBytes {
        /// Bytes after the first batch.
        extra: usize,
    },
    /// Larger than the topic allows.
    #[error("record batch of {len} bytes is larger than max.message.bytes={limit}")]
    TooLarge {
        /// Size of the batch in bytes.
        len: usize,
        /// `max.message.bytes`.
        limit: usize,
    },
    /// Compression codec unknown, or not allowed in this request version.
    #[error("compression type {codec} is not supported by this request version")]
    UnsupportedCompression {
        /// Codec number from the attributes.
        codec: u8,
    },
    /// The batch as a whole breaks a rule for clients.
    #[error("{0}")]
    Invalid(&'static str),
    /// Transactional or control use that is not offered here.
    #[error("{0}")]
    NotOffered(&'static str),
    /// A record is malformed inside a batch with a valid checksum.
    #[error("record {index}: {reason}")]
    BadRecord {
        /// Position of the record in its batch, from 0.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Records that break a rule of the topic; each is named (at most [`MAX_RECORD_ERRORS`]).
    #[error("{} record(s) are invalid, the first is record {}: {}", .0.len(), .0.first().map_or(0, |e| e.index), .0.first().map_or("", |e| e.message))]
    InvalidRecords(Vec<RecordError>),
    /// Timestamps outside the accepted range; the records are named (at most [`MAX_RECORD_ERRORS`]).
    #[error("{} record(s) have a timestamp outside the range of message.timestamp.before.max.ms and message.timestamp.after.max.ms, the first is record {}", .0.len(), .0.first().map_or(0, |e| e.index))]
    InvalidTimestamps(Vec<RecordError>),
    /// The compressed part cannot be decompressed.
    #[error("compressed records are damaged ({codec}): {reason}")]
    BadCompression {
        /// Codec name.
        codec: &'static str,
        /// What the codec reported.
        reason: &'static str,
    },
    /// Decompression would give more bytes than the cap.
    #[error("records decompress to more than the cap of {cap} bytes")]
    DecompressionCap {
        /// The cap in bytes.
        cap: usize,
    },
}

impl BatchError {
    /// The protocol's error number for this reason.
    pub fn code(&self) -> i16 {
        match self {
            Self::TooShort { .. }
            | Self::LengthMismatch { .. }
            | Self::BadChecksum { .. }
            | Self::BadHeader(_) => code::CORRUPT_MESSAGE,
            Self::TooLarge { .. } | Self::DecompressionCap { .. } => code::MESSAGE_TOO_LARGE,
            Self::UnsupportedCompression { .. } => code::UNSUPPORTED_COMPRESSION_TYPE,
            Self::NotOffered(_) => code::INVALID_TXN_STATE,
            Self::InvalidTimestamps(_) => code::INVALID_TIMESTAMP,
            // What follows arrived as it was sent (the checksum says so): sending it again cannot help, and CORRUPT_MESSAGE would be retried.
            Self::UnsupportedMagic { .. }
            | Self::TrailingBytes { .. }
            | Self::Invalid(_)
            | Self::BadRecord { .. }
            | Self::InvalidRecords(_)
            | Self::BadCompression { .. } => code::INVALID_RECORD,
        }
    }

    /// The protocol's name for [`BatchError::code`].
    pub fn code_name(&self) -> &'static str {
        match self.code() {
            code::CORRUPT_MESSAGE => "CORRUPT_MESSAGE",
            code::MESSAGE_TOO_LARGE => "MESSAGE_TOO_LARGE",
            code::INVALID_TIMESTAMP => "INVALID_TIMESTAMP",
            code::INVALID_TXN_STATE => "INVALID_TXN_STATE",
            code::UNSUPPORTED_COMPRESSION_TYPE => "UNSUPPORTED_COMPRESSION_TYPE",
            _ => "INVALID_RECORD",
        }
    }

    /// The records to name in a Produce v8+ response; empty where the batch as a whole is at fault.
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            Self::InvalidRecords(errors) | Self::InvalidTimestamps(errors) => {
                debug_assert!(errors.len() <= MAX_RECORD_ERRORS);
                errors
            }
            _ => &[],
        }
    }
}
