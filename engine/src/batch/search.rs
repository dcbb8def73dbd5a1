//! Questions about a stored batch that only its records can answer: where a timestamp begins (ListOffsets), and the records themselves.
//!
//! Stored batches were checked when they were appended, but disks rot: every answer is an error rather than a guess where the bytes disagree with themselves, and decompression stays under the caller's cap.

use super::{
    compression::{decompress, decompress_in_steps},
    error::BatchError,
    header::{BatchHeader, Compression, HEADER_BYTES, TimestampType},
    record::Records,
    scan::{Seen, Walk, walk},
};
use std::borrow::Cow;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedRecord {
    /// Timestamp in ms.
    pub timestamp: i64,
    /// Absolute offset.
    pub offset: i64,
}

/// The first record of `batch` with a timestamp ≥ `timestamp`; `None` where all are older (then nothing is decompressed).
///
/// `batch`: the whole batch that `header` was parsed from. With LogAppendTime every record has the batch's largest timestamp.
pub fn first_at_or_after(
    batch: &[u8],
    header: &BatchHeader,
    timestamp: i64,
    cap: usize,
) -> Result<Option<TimedRecord>, BatchError> {
    if header.max_timestamp < timestamp {
        return Ok(None);
    }
    first(batch, header, cap, |record| record.timestamp >= timestamp)
}

/// The first record of `batch` that has its largest timestamp; `None` where no record does (a damaged header).
pub fn max_timestamp_record(
    batch: &[u8],
    header: &BatchHeader,
    cap: usize,
) -> Result<Option<TimedRecord>, BatchError> {
    first(batch, header, cap, |record| {
        record.timestamp == header.max_timestamp
    })
}

/// The records' bytes of `batch`, decompressed where needed, to iterate over with [`Records::new`]. At most `cap` bytes are made.
pub fn read_records<'a>(
    batch: &'a [u8],
    header: &BatchHeader,
    cap: usize,
) -> Result<RecordBytes<'a>, BatchError> {
    let payload = payload_of(batch, header)?;
    let bytes = match header.attributes.compression()? {
        Compression::None => Cow::Borrowed(payload),
        compression => Cow::Owned(decompress(compression, payload, cap)?),
    };
    Ok(RecordBytes {
        bytes,
        count: header.record_count,
    })
}

/// The same in steps, where there is something to decompress: after each `turn` is awaited with the bytes that it gave.
pub(crate) async fn read_records_in_steps<'a>(
    batch: &'a [u8],
    header: &BatchHeader,
    cap: usize,
    turn: &impl AsyncFn(usize),
) -> Result<RecordBytes<'a>, BatchError> {
    let payload = payload_of(batch, header)?;
    let bytes = match header.attributes.compression()? {
        Compression::None => Cow::Borrowed(payload),
        compression => Cow::Owned(decompress_in_steps(compression, payload, cap, turn).await?),
    };
    Ok(RecordBytes {
        bytes,
        count: header.record_count,
    })
}

fn payload_of<'a>(batch: &'a [u8], header: &BatchHeader) -> Result<&'a [u8], BatchError> {
    let payload = batch.get(HEADER_BYTES..header.size());
    payload.ok_or(BatchError::LengthMismatch {
        claimed: header.size() as i64,
        present: batch.len(),
    })
}

/// Decompressed records; borrows them where they were not compressed.
#[derive(Clone, Debug)]
pub struct RecordBytes<'a> {
    bytes: Cow<'a, [u8]>,
    count: i32,
}

impl RecordBytes<'_> {
    /// The records' bytes, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records in order.
    pub fn iter(&self) -> Records<'_> {
        Records::new(&self.bytes, self.count)
    }
}

fn first(
    batch: &[u8],
    header: &BatchHeader,
    cap: usize,
    wanted: impl Fn(&TimedRecord) -> bool,
) -> Result<Option<TimedRecord>, BatchError> {
    let mut found = None;
    walk(batch, header, cap, |_, seen| {
        let record = timed(header, &seen);
        if wanted(&record) {
            found = Some(record);
            return Walk::Stop;
        }
        Walk::On
    })?;
    Ok(found)
}

fn timed(header: &BatchHeader, seen: &Seen) -> TimedRecord {
    let timestamp = match header.attributes.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(seen.timestamp_delta),
    };
    TimedRecord {
        timestamp,
        offset: header
            .base_offset
            .saturating_add(i64::from(seen.offset_delta)),
    }
}
