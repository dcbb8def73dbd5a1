//! Builds record batches: for the metadata log, coordinators, tests and benchmarks.
//!
//! Records are encoded as they are added; nothing is compressed or checksummed before [`BatchBuilder::build`]. What a producer may do wrong on
//! purpose (tests) is done by changing the header afterwards with [`BatchHeader::encode`].

use super::{
    compression,
    error::BatchError,
    header::{
        Attributes, BatchHeader, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, NO_LEADER_EPOCH,
        NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, checksum,
    },
    varint,
};

/// What a record's body takes besides its key and value, as a rule at most.
const BODY_OVERHEAD_BYTES: usize = 24;

/// A batch under construction. The first record's timestamp becomes the base timestamp.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    records: Vec<u8>,
    scratch: Vec<u8>,
    header: BatchHeader,
    compression: Compression,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty uncompressed batch as a producer without idempotence would send it.
    pub fn new() -> Self {
        Self {
            records: Vec::new(),
            scratch: Vec::new(),
            header: BatchHeader {
                base_offset: 0,
                length: 0,
                leader_epoch: NO_LEADER_EPOCH,
                checksum: 0,
                attributes: Attributes::default(),
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                base_sequence: NO_SEQUENCE,
                record_count: 0,
            },
            compression: Compression::None,
        }
    }

    /// An empty batch, with room for records of so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            records: Vec::with_capacity(bytes),
            ..Self::new()
        }
    }

    /// Compresses the records with this codec.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Gives the batch a producer id, epoch and first sequence.
    #[must_use]
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Gives the batch its place in a log.
    #[must_use]
    pub fn at(mut self, base_offset: i64, leader_epoch: i32) -> Self {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        self
    }

    /// Sets the attribute bits other than compression.
    #[must_use]
    pub fn attributes(mut self, attributes: Attributes) -> Self {
        self.header.attributes = attributes;
        self
    }

    /// Adds a record without headers.
    #[must_use]
    pub fn record(mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.push(timestamp_ms, key, value, &[]);
        self
    }

    /// Adds a record.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let header = &mut self.header;
        if header.record_count == 0 {
            header.base_timestamp = timestamp_ms;
        }
        header.max_timestamp = header.max_timestamp.max(timestamp_ms);
        header.record_count += 1;
        header.last_offset_delta += 1;
        let body = &mut self.scratch;
        body.clear();
        body.reserve(
            key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + BODY_OVERHEAD_BYTES,
        );
        body.push(0);
        varint::write_i64(body, timestamp_ms.wrapping_sub(header.base_timestamp));
        varint::write_i64(body, i64::from(header.last_offset_delta));
        write_nullable(body, key);
        write_nullable(body, value);
        varint::write_i64(body, headers.len() as i64);
        for &(key, value) in headers {
            write_nullable(body, Some(key));
            write_nullable(body, value);
        }
        varint::write_i64(&mut self.records, self.scratch.len() as i64);
        self.records.extend_from_slice(&self.scratch);
    }

    /// Number of records added.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Size in bytes the batch would have without compression.
    pub fn size_uncompressed(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The finished batch.
    ///
    /// Errors: no records, more bytes than a length field can say, or the codec failed.
    pub fn build(self) -> Result<Vec<u8>, BatchError> {
        if self.header.record_count == 0 {
            return Err(BatchError::BadHeader("a batch has at least one record"));
        }
        let mut batch = Vec::with_capacity(HEADER_BYTES + self.records.len());
        batch.resize(HEADER_BYTES, 0);
        compression::compress(self.compression, &self.records, &mut batch)?;
        let mut header = self.header;
        header.length = i32::try_from(batch.len() - LENGTH_OVERHEAD_BYTES).map_err(|_| {
            BatchError::TooLarge {
                len: batch.len(),
                limit: i32::MAX as usize,
            }
        })?;
        header.attributes = header.attributes.with_compression(self.compression);
        batch[..HEADER_BYTES].copy_from_slice(&header.encode());
        seal(&mut batch);
        Ok(batch)
    }
}

/// Recomputes the checksum of a batch after its bytes changed. Nothing happens where `batch` is shorter than a header.
pub fn seal(batch: &mut [u8]) {
    if batch.len() >= HEADER_BYTES {
        let checksum = checksum(batch);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_i64(out, -1),
        Some(bytes) => {
            varint::write_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
