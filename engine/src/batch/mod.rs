//! Record batches, version 2 (KIP-98): the unit that is produced, stored, replicated and fetched.
//!
//! Pure: bytes and rules go in, facts come out; no file, clock or socket is known here. A batch is checked once when a client sends it
//! ([`validate_produce`]), gets its offset and epoch by [`assign`] or [`BatchHeader::assigned`], and is not re-encoded afterwards unless compaction takes records out of it. Every parser here accepts any bytes without panicking and without allocating more than it was told to.

mod builder;
mod compression;
mod control;
mod error;
mod header;
mod iterate;
mod record;
mod scan;
mod search;
mod validate;
mod varint;
mod zstd_stream;

pub use builder::{BatchBuilder, seal};
pub(crate) use compression::compress_in_steps;
pub use compression::{compress, decompress};
pub use control::EndTransactionMarker;
pub use error::{BatchError, RecordError, code};
pub use header::{
    Attributes, BatchHeader, CHECKSUM_START, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES,
    MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP,
    TimestampType, advance_sequence, assign, checksum, crc32c,
};
pub use iterate::{Batch, Batches, batches};
pub use record::{Record, RecordHeader, Records};
pub(crate) use search::read_records_in_steps;
pub use search::{RecordBytes, TimedRecord, first_at_or_after, max_timestamp_record, read_records};
pub use validate::{ProduceRules, ValidBatch, validate_produce};

/// At most this many records are named in one refusal, so that a hostile batch cannot make a large answer.
pub const MAX_RECORD_ERRORS: usize = 64;

#[cfg(test)]
mod tests;
