//! Record batches (magic 2) as the generator writes and reads them: building, stamping in place, and walking over fetched ones.
//!
//! Kept apart from the broker's own batch code on purpose: a generator that shared it would share its mistakes. Building never
//! fails; walking treats its input as foreign and checks every length.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::{Compression, CompressionError};

/// Bytes of a batch before its first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes at the start of a record's value that carry its [`Stamp`].
pub const STAMP_BYTES: usize = 24;

const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
/// In the low byte of the attributes.
const TRANSACTIONAL: u8 = 0x10;

/// CRC-32C, as batches and stamps use it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// What a record says about itself: enough to time it and to notice loss, doubling, reordering and corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Position in its partition among the records of this run, from 0.
    pub sequence: u64,
    /// When it was meant to be sent: nanoseconds on the run's clock.
    pub intended_ns: u64,
    /// The run that wrote it, so that a consumer can pass over what others left in the topic.
    pub run: u32,
}

impl Stamp {
    /// Writes the stamp over the first [`STAMP_BYTES`] of `value`; with `checksum` it also covers the rest of the value.
    pub fn write(self, value: &mut [u8], checksum: bool) {
        value[0..8].copy_from_slice(&self.sequence.to_be_bytes());
        value[8..16].copy_from_slice(&self.intended_ns.to_be_bytes());
        value[16..20].copy_from_slice(&self.run.to_be_bytes());
        let sum = if checksum { value_checksum(value) } else { 0 };
        value[20..24].copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads a stamp back; `None` where the value is too short to hold one.
    pub fn read(value: &[u8]) -> Option<Stamp> {
        Some(Stamp {
            sequence: u64::from_be_bytes(value.get(0..8)?.try_into().ok()?),
            intended_ns: u64::from_be_bytes(value.get(8..16)?.try_into().ok()?),
            run: u32::from_be_bytes(value.get(16..20)?.try_into().ok()?),
        })
    }

    /// Whether a value that was stamped with a checksum is still what was written.
    pub fn intact(value: &[u8]) -> bool {
        value.len() >= STAMP_BYTES && value[20..24] == value_checksum(value).to_be_bytes()
    }
}

fn value_checksum(value: &[u8]) -> u32 {
    // The rotation keeps equal halves from cancelling out.
    crc32c(&value[..20]).rotate_left(1) ^ crc32c(&value[STAMP_BYTES..])
}

/// Who writes a batch, for idempotence; [`ProducerIdentity::NONE`] otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Producer id, −1 without idempotence.
    pub id: i64,
    /// Its epoch, −1 without idempotence.
    pub epoch: i16,
    /// Sequence number of the first record, −1 without idempotence.
    pub sequence: i32,
}

impl ProducerIdentity {
    /// No idempotence.
    pub const NONE: ProducerIdentity = ProducerIdentity {
        id: -1,
        epoch: -1,
        sequence: -1,
    };
}

/// A batch under construction. Reused from batch to batch; each costs one allocation of about its size.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    buffer: BytesMut,
    /// Size of the batch before: what the next one will probably need.
    size_hint: usize,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Records appended since the last [`seal`](Self::seal).
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes the batch would have now, before compression.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a record of `payload` under `key`; where `stamp` is given it overwrites the start of the value.
    ///
    /// `timestamp` is in milliseconds since the epoch.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        payload: &[u8],
        stamp: Option<(Stamp, bool)>,
    ) {
        if self.count == 0 {
            self.buffer =
                BytesMut::with_capacity(self.size_hint.max(HEADER_BYTES + payload.len() + 64));
            self.buffer.put_bytes(0, HEADER_BYTES);
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = timestamp - self.base_timestamp;
        let key_bytes = key.map_or(varint_bytes(-1), |key| {
            varint_bytes(length(key)) + key.len()
        });
        let body = 1
            + varint_bytes(delta)
            + varint_bytes(i64::from(self.count))
            + key_bytes
            + varint_bytes(length(payload))
            + payload.len()
            + 1;
        self.buffer.reserve(body + 5);
        put_varint(&mut self.buffer, i64::try_from(body).unwrap_or(i64::MAX));
        self.buffer.put_u8(0);
        put_varint(&mut self.buffer, delta);
        put_varint(&mut self.buffer, i64::from(self.count));
        match key {
            None => put_varint(&mut self.buffer, -1),
            Some(key) => {
                put_varint(&mut self.buffer, length(key));
                self.buffer.put_slice(key);
            }
        }
        put_varint(&mut self.buffer, length(payload));
        let value_at = self.buffer.len();
        self.buffer.put_slice(payload);
        if let Some((stamp, checksum)) = stamp {
            stamp.write(&mut self.buffer[value_at..], checksum);
        }
        self.buffer.put_u8(0);
        self.count += 1;
    }

    /// Completes the batch: header, compression and checksum. The builder is empty afterwards.
    pub fn seal(
        &mut self,
        producer: ProducerIdentity,
        compression: Compression,
    ) -> Result<Bytes, CompressionError> {
        // The whole allocation goes with the batch, so that its owner can turn it back into a buffer.
        let mut batch = std::mem::take(&mut self.buffer);
        self.size_hint = batch.len() + 64;
        if compression != Compression::None {
            let packed = compression.compress(&batch[HEADER_BYTES..])?;
            batch.truncate(HEADER_BYTES);
            batch.extend_from_slice(&packed);
        }
        let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
        {
            let mut header = &mut batch[..HEADER_BYTES];
            header.put_i64(0);
            header.put_i32(length);
            header.put_i32(-1);
            header.put_i8(2);
            header.put_u32(0);
            header.put_i16(compression.attribute());
            header.put_i32(self.count - 1);
        }
        stamp_header(
            &mut batch,
            self.base_timestamp,
            self.max_timestamp,
            producer,
            self.count,
        );
        self.count = 0;
        Ok(batch.freeze())
    }
}

/// Says in a complete batch that it belongs to a transaction. Its checksum is wrong until [`stamp_header`] makes it right.
pub fn mark_transactional(batch: &mut [u8]) {
    batch[ATTRIBUTES_AT + 1] |= TRANSACTIONAL;
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

/// Rewrites timestamps, producer and checksum of a complete batch in place: what turns a prebuilt batch into a fresh one.
pub fn stamp_header(
    batch: &mut [u8],
    base_timestamp: i64,
    max_timestamp: i64,
    producer: ProducerIdentity,
    count: i32,
) {
    let mut fields = &mut batch[27..HEADER_BYTES];
    fields.put_i64(base_timestamp);
    fields.put_i64(max_timestamp);
    fields.put_i64(producer.id);
    fields.put_i16(producer.epoch);
    fields.put_i32(producer.sequence);
    fields.put_i32(count);
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Bytes of `value` as a zigzag varint.
fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn put_varint(buffer: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buffer.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

/// What is wrong with fetched bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A length points outside the batch.
    #[error("a length points outside the batch")]
    Length,
    /// The batch's CRC-32C does not fit its bytes.
    #[error("the batch's CRC-32C does not match its bytes")]
    Checksum,
    /// Not a version 2 batch.
    #[error("the batch's magic is {0}; only 2 is read")]
    Magic(i8),
    /// Compressed bytes that do not decompress, or a codec that does not exist.
    #[error("the batch's compressed records do not decompress")]
    Compression,
}

/// One fetched batch.
#[derive(Clone, Copy, Debug)]
pub struct FetchedBatch<'a> {
    bytes: &'a [u8],
}

impl<'a> FetchedBatch<'a> {
    /// Splits the first whole batch off `bytes`; `None` where only a cut-off batch (or nothing) is left.
    pub fn split_first(
        bytes: &'a [u8],
    ) -> Option<Result<(FetchedBatch<'a>, &'a [u8]), BatchError>> {
        let length = i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let Ok(length) = usize::try_from(length) else {
            return Some(Err(BatchError::Length));
        };
        if length < HEADER_BYTES - 12 {
            return Some(Err(BatchError::Length));
        }
        let total = length.checked_add(12)?;
        if bytes.len() < total {
            return None;
        }
        let (batch, rest) = bytes.split_at(total);
        let magic = i8::from_be_bytes([batch[16]]);
        if magic != 2 {
            return Some(Err(BatchError::Magic(magic)));
        }
        Some(Ok((FetchedBatch { bytes: batch }, rest)))
    }

    fn i32_at(&self, at: usize) -> i32 {
        i32::from_be_bytes([
            self.bytes[at],
            self.bytes[at + 1],
            self.bytes[at + 2],
            self.bytes[at + 3],
        ])
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from(self.i32_at(0)) << 32 | i64::from(self.i32_at(4).cast_unsigned())
    }

    /// The offset to fetch next.
    pub fn next_offset(&self) -> i64 {
        self.base_offset()
            .saturating_add(i64::from(self.i32_at(23)))
            .saturating_add(1)
    }

    /// How many records it says it holds.
    pub fn count(&self) -> i32 {
        self.i32_at(57)
    }

    /// Whether it is a control batch: a marker of a transaction, no data.
    pub fn is_control(&self) -> bool {
        self.bytes[22] & 0x20 != 0
    }

    /// Whether its records are compressed.
    pub fn is_compressed(&self) -> bool {
        self.bytes[22] & 0x07 != 0
    }

    /// Checks the batch's CRC-32C.
    pub fn check(&self) -> Result<(), BatchError> {
        let sum = crc32c(&self.bytes[ATTRIBUTES_AT..]);
        if sum.to_be_bytes() == self.bytes[CRC_AT..CRC_AT + 4] {
            Ok(())
        } else {
            Err(BatchError::Checksum)
        }
    }

    /// Hands offset and value of every record at or after `from` to `each`.
    pub fn for_each(&self, from: i64, mut each: impl FnMut(i64, &[u8])) -> Result<(), BatchError> {
        let compression =
            Compression::of_attributes(self.bytes[22]).ok_or(BatchError::Compression)?;
        let unpacked;
        let mut records = &self.bytes[HEADER_BYTES..];
        if compression != Compression::None {
            unpacked = compression
                .decompress(records)
                .map_err(|_| BatchError::Compression)?;
            records = &unpacked;
        }
        let base = self.base_offset();
        for _ in 0..self.count() {
            let size =
                usize::try_from(take_varint(&mut records)?).map_err(|_| BatchError::Length)?;
            if size > records.len() {
                return Err(BatchError::Length);
            }
            let (mut record, rest) = records.split_at(size);
            records = rest;
            record = record.get(1..).ok_or(BatchError::Length)?;
            take_varint(&mut record)?;
            let offset = base.saturating_add(take_varint(&mut record)?);
            let key = take_varint(&mut record)?;
            if let Ok(key) = usize::try_from(key) {
                record = record.get(key..).ok_or(BatchError::Length)?;
            }
            let value = usize::try_from(take_varint(&mut record)?).unwrap_or(0);
            let value = record.get(..value).ok_or(BatchError::Length)?;
            if offset >= from {
                each(offset, value);
            }
        }
        Ok(())
    }
}

fn take_varint(bytes: &mut &[u8]) -> Result<i64, BatchError> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(BatchError::Length)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    Err(BatchError::Length)
}

#[cfg(test)]
mod tests {
    //! What is built is what is read back, for every codec; damage is noticed.
    use super::*;

    fn build(compression: Compression, records: u64) -> Bytes {
        let mut builder = BatchBuilder::default();
        for sequence in 0..records {
            let payload = vec![7u8; 100 + usize::try_from(sequence).unwrap() * 50];
            let stamp = Stamp {
                sequence,
                intended_ns: sequence * 1000,
                run: 9,
            };
            builder.append(
                1_000 + sequence as i64,
                Some(b"key"),
                &payload,
                Some((stamp, true)),
            );
        }
        builder.seal(ProducerIdentity::NONE, compression).unwrap()
    }

    #[test]
    fn every_codec_reads_back() {
        for compression in Compression::ALL {
            let bytes = build(compression, 20);
            let (batch, rest) = FetchedBatch::split_first(&bytes).unwrap().unwrap();
            assert!(rest.is_empty());
            batch.check().unwrap();
            assert_eq!((batch.count(), batch.next_offset()), (20, 20));
            let mut seen = 0;
            batch
                .for_each(5, |offset, value| {
                    assert!(Stamp::intact(value));
                    assert_eq!(
                        Stamp::read(value).unwrap().sequence,
                        u64::try_from(offset).unwrap()
                    );
                    seen += 1;
                })
                .unwrap();
            assert_eq!(seen, 15, "{compression:?}");
        }
    }

    #[test]
    fn any_flipped_byte_after_the_checksum_is_noticed() {
        let good = build(Compression::None, 3);
        for at in ATTRIBUTES_AT..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            let (batch, _) = FetchedBatch::split_first(&bad).unwrap().unwrap();
            assert_eq!(batch.check(), Err(BatchError::Checksum), "byte {at}");
        }
    }

    #[test]
    fn a_stamp_covers_the_whole_value() {
        let mut value = vec![3u8; 60];
        Stamp {
            sequence: 1,
            intended_ns: 2,
            run: 3,
        }
        .write(&mut value, true);
        assert!(Stamp::intact(&value));
        for at in 0..value.len() {
            value[at] ^= 1;
            assert!(!Stamp::intact(&value), "byte {at}");
            value[at] ^= 1;
        }
    }

    #[test]
    fn cut_and_absurd_batches_are_errors_or_nothing() {
        let good = build(Compression::None, 3);
        for cut in 0..good.len() {
            assert!(FetchedBatch::split_first(&good[..cut]).is_none());
        }
        let mut bad = good.to_vec();
        bad[8..12].copy_from_slice(&(-5i32).to_be_bytes());
        assert_eq!(
            FetchedBatch::split_first(&bad).unwrap().err(),
            Some(BatchError::Length)
        );
        let mut bad = good.to_vec();
        bad[57..61].copy_from_slice(&4i32.to_be_bytes());
        let (batch, _) = FetchedBatch::split_first(&bad).unwrap().unwrap();
        assert_eq!(batch.for_each(0, |_, _| {}), Err(BatchError::Length));
    }
}
