//! The 61-byte header of a version 2 record batch: parsing, encoding, and the fields a broker may change.
//!
//! Layout (KIP-98): base offset i64, length i32, leader epoch i32, magic i8, CRC-32C u32, attributes i16, last offset delta i32,
//! base timestamp i64, max timestamp i64, producer id i64, producer epoch i16, base sequence i32, record count i32; big endian. The CRC covers
//! attributes to the end, so base offset and leader epoch may change without touching it. Parsing checks structure only; the checksum is checked by [`BatchHeader::checksum_matches`].

use super::error::BatchError;

/// Bytes in a batch header.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the point from which the length field counts.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// First byte under the checksum (the attributes).
pub const CHECKSUM_START: usize = 21;
/// The only batch version written or accepted.
pub const MAGIC: i8 = 2;
/// Producer id of a batch without one.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch of a batch without one.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch without one.
pub const NO_SEQUENCE: i32 = -1;
/// Leader epoch where it is not known.
pub const NO_LEADER_EPOCH: i32 = -1;
/// Timestamp where there is none.
pub const NO_TIMESTAMP: i64 = -1;

const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;
const COMPRESSION_MASK: i16 = 0b111;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Plain records.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw snappy, or snappy in the xerial framing that Java producers write.
    Snappy = 2,
    /// LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878 (KIP-110).
    Zstd = 4,
}

impl Compression {
    /// The codec's name as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Who sets a record's timestamp (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The broker, when it appends.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    /// The compression codec, or the unknown number.
    #[inline]
    pub fn compression(self) -> Result<Compression, BatchError> {
        match self.0 & COMPRESSION_MASK {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::UnsupportedCompression { codec: other as u8 }),
        }
    }

    /// Who set the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL_BIT != 0
    }

    /// Holds control records (transaction markers, leader changes) instead of data.
    pub fn is_control(self) -> bool {
        self.0 & CONTROL_BIT != 0
    }

    /// The base timestamp is a delete horizon (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON_BIT != 0
    }

    /// With this codec.
    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self((self.0 & !COMPRESSION_MASK) | compression as i16)
    }

    /// With this timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with_bit(
            TIMESTAMP_TYPE_BIT,
            timestamp_type == TimestampType::LogAppendTime,
        )
    }

    /// With or without the transactional bit.
    #[must_use]
    pub fn with_transactional(self, on: bool) -> Self {
        self.with_bit(TRANSACTIONAL_BIT, on)
    }

    /// With or without the control bit.
    #[must_use]
    pub fn with_control(self, on: bool) -> Self {
        self.with_bit(CONTROL_BIT, on)
    }

    /// Saying, or not, that the base timestamp is a delete horizon.
    #[must_use]
    pub fn with_delete_horizon(self, on: bool) -> Self {
        self.with_bit(DELETE_HORIZON_BIT, on)
    }

    fn with_bit(self, bit: i16, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// A parsed batch header. All fields are as stored; offsets are absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (0 as producers send it).
    pub base_offset: i64,
    /// The length field: bytes after itself. See [`BatchHeader::size`] for the whole batch.
    pub length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: i32,
    /// CRC-32C of attributes to the end.
    pub checksum: u32,
    /// Codec, timestamp type, transactional, control, delete horizon.
    pub attributes: Attributes,
    /// Offset of the last record, counted from the base offset. Compaction may leave it larger than the record count suggests.
    pub last_offset_delta: i32,
    /// Timestamp that record deltas count from, in ms (or the delete horizon).
    pub base_timestamp: i64,
    /// Largest record timestamp in ms; with LogAppendTime, every record's.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold more or less than the whole batch.
    ///
    /// Checks: 61 bytes present, magic 2, a length that can hold a header, no offset overflow. Does not check that the whole batch is
    /// present ([`BatchHeader::size`] says how much that is) nor the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else {
            // The magic of an old, shorter message sits at the same place: say what is really wrong where it can be seen.
            if let Some(&magic) = bytes.get(16)
                && (magic as i8) < MAGIC
            {
                return Err(BatchError::UnsupportedMagic { magic: magic as i8 });
            }
            return Err(BatchError::TooShort { len: bytes.len() });
        };
        let magic = raw[16] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(raw, 0)),
            length: i32::from_be_bytes(field(raw, 8)),
            leader_epoch: i32::from_be_bytes(field(raw, 12)),
            checksum: u32::from_be_bytes(field(raw, 17)),
            attributes: Attributes(i16::from_be_bytes(field(raw, 21))),
            last_offset_delta: i32::from_be_bytes(field(raw, 23)),
            base_timestamp: i64::from_be_bytes(field(raw, 27)),
            max_timestamp: i64::from_be_bytes(field(raw, 35)),
            producer_id: i64::from_be_bytes(field(raw, 43)),
            producer_epoch: i16::from_be_bytes(field(raw, 51)),
            base_sequence: i32::from_be_bytes(field(raw, 53)),
            record_count: i32::from_be_bytes(field(raw, 57)),
        };
        if header.length < (HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::BadHeader("length is smaller than a header"));
        }
        if header.base_offset < 0 {
            return Err(BatchError::BadHeader("base offset is negative"));
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::BadHeader("last offset delta is negative"));
        }
        if header
            .base_offset
            .checked_add(i64::from(header.last_offset_delta) + 1)
            .is_none()
        {
            return Err(BatchError::BadHeader("offsets overflow"));
        }
        Ok(header)
    }

    /// Size of the whole batch in bytes, header included.
    pub fn size(&self) -> usize {
        // `parse` has seen that the length is positive.
        self.length as usize + LENGTH_OVERHEAD_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Offset that follows the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Sequence of the last record; wraps from `i32::MAX` to 0. -1 where the batch has no sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            advance_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    /// Whether the batch carries a producer id.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Whether the stored checksum matches `batch`, which must be exactly this batch.
    pub fn checksum_matches(&self, batch: &[u8]) -> bool {
        batch.len() == self.size() && checksum(batch) == self.checksum
    }

    /// The header's 61 bytes, as they would be stored.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut raw = [0; HEADER_BYTES];
        put(&mut raw, 0, self.base_offset.to_be_bytes());
        put(&mut raw, 8, self.length.to_be_bytes());
        put(&mut raw, 12, self.leader_epoch.to_be_bytes());
        raw[16] = MAGIC as u8;
        put(&mut raw, 17, self.checksum.to_be_bytes());
        put(&mut raw, 21, self.attributes.0.to_be_bytes());
        put(&mut raw, 23, self.last_offset_delta.to_be_bytes());
        put(&mut raw, 27, self.base_timestamp.to_be_bytes());
        put(&mut raw, 35, self.max_timestamp.to_be_bytes());
        put(&mut raw, 43, self.producer_id.to_be_bytes());
        put(&mut raw, 51, self.producer_epoch.to_be_bytes());
        put(&mut raw, 53, self.base_sequence.to_be_bytes());
        put(&mut raw, 57, self.record_count.to_be_bytes());
        raw
    }

    /// The header with what the leader assigns. Encode it, then copy the batch's bytes from [`HEADER_BYTES`] on: one copy, no second pass.
    #[must_use]
    pub fn assigned(&self, base_offset: i64, leader_epoch: i32) -> Self {
        Self {
            base_offset,
            leader_epoch,
            ..*self
        }
    }

    /// The header with another timestamp type and largest timestamp, and the checksum that belongs to them. `batch` is the whole batch this header was parsed from.
    ///
    /// Without a change nothing is computed; otherwise the batch's bytes are passed over once more.
    #[must_use]
    pub fn restamped(
        &self,
        timestamp_type: TimestampType,
        max_timestamp: i64,
        batch: &[u8],
    ) -> Self {
        let attributes = self.attributes.with_timestamp_type(timestamp_type);
        let mut changed = Self {
            attributes,
            max_timestamp,
            ..*self
        };
        if changed != *self {
            let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            digest.update(&changed.encode()[CHECKSUM_START..]);
            digest.update(batch.get(HEADER_BYTES..).unwrap_or_default());
            changed.checksum = digest.finalize() as u32;
        }
        changed
    }
}

/// CRC-32C of a whole batch as its header must carry it (attributes to the end). 0 for less than a header.
pub fn checksum(batch: &[u8]) -> u32 {
    batch.get(CHECKSUM_START..).map_or(0, crc32c)
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // A 32-bit checksum is handed out in 64 bits.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// `sequence` moved on by `by` records (`by` ≥ 0); 0 follows `i32::MAX`.
pub fn advance_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

/// Writes base offset and leader epoch into a stored batch; both lie outside its checksum. False (and nothing is written) where `batch` is shorter than a header.
#[must_use]
pub fn assign(batch: &mut [u8], base_offset: i64, leader_epoch: i32) -> bool {
    let Some(raw) = batch.first_chunk_mut::<HEADER_BYTES>() else {
        return false;
    };
    put(raw, 0, base_offset.to_be_bytes());
    put(raw, 12, leader_epoch.to_be_bytes());
    true
}

fn field<const N: usize>(raw: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

fn put<const N: usize>(raw: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    raw[at..at + N].copy_from_slice(&value);
}
