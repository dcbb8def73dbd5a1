//! End-transaction markers: the control batches by which a coordinator ends a transaction in a partition (KIP-98).
//!
//! A marker is a batch with the control and the transactional bit and one record. Its key is version i16 and type i16 (0 abort, 1 commit; other types are no markers), its value version
//! i16 and coordinator epoch i32, big endian. Later versions may append fields, which are not looked at.

use super::{
    builder::BatchBuilder,
    compression::decompress,
    error::BatchError,
    header::{Attributes, BatchHeader, Compression, NO_SEQUENCE},
    record::Records,
};

/// Bytes of records that a control batch is taken to have at most.
const CONTROL_BYTES_MAX: usize = 4096;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Whose transaction ends.
    pub producer_id: i64,
    /// The epoch in which it ends; with transaction version 2 already the producer's next one (KIP-890).
    pub producer_epoch: i16,
    /// The coordinator's epoch: the leader epoch of its partition of `__transaction_state`.
    pub coordinator_epoch: i32,
    /// Whether the transaction is committed; else it is aborted.
    pub committed: bool,
    /// When, in ms.
    pub timestamp: i64,
}

impl EndTransactionMarker {
    /// Whether a header may be a marker's: only its record says.
    #[inline]
    pub fn is_possible(header: &BatchHeader) -> bool {
        let attributes = header.attributes;
        attributes.is_control() && attributes.is_transactional() && header.has_producer_id()
    }

    /// The marker in a batch, given what follows its header; `None` where the batch is none, or compaction took its record.
    ///
    /// # Errors
    /// When a batch that should be one cannot be read.
    pub fn of(header: &BatchHeader, payload: &[u8]) -> Result<Option<Self>, BatchError> {
        const DAMAGED: BatchError = BatchError::BadHeader("a control record cannot be read");
        if !Self::is_possible(header) || header.record_count == 0 {
            return Ok(None);
        }
        let plain;
        let records = match header.attributes.compression()? {
            Compression::None => payload,
            compression => {
                plain = decompress(compression, payload, CONTROL_BYTES_MAX)?;
                &plain
            }
        };
        let Some(record) = Records::new(records, header.record_count).next() else {
            return Ok(None);
        };
        let record = record?;
        let (key, value) = (record.key.unwrap_or_default(), record.value);
        let kind = key.get(2..).and_then(|rest| rest.first_chunk());
        let committed = match kind.map(|raw| i16::from_be_bytes(*raw)) {
            Some(ABORT) => false,
            Some(COMMIT) => true,
            Some(_) => return Ok(None),
            None => return Err(DAMAGED),
        };
        let epoch = value.unwrap_or_default().get(2..);
        let epoch = epoch.and_then(|rest| rest.first_chunk()).ok_or(DAMAGED)?;
        Ok(Some(Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: i32::from_be_bytes(*epoch),
            committed,
            timestamp: header.base_timestamp.wrapping_add(record.timestamp_delta),
        }))
    }

    /// The batch that says it.
    ///
    /// # Errors
    /// None that could happen: see [`BatchBuilder::build`].
    pub fn build(&self) -> Result<Vec<u8>, BatchError> {
        let kind = if self.committed { COMMIT } else { ABORT };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let attributes = Attributes::default()
            .with_transactional(true)
            .with_control(true);
        BatchBuilder::new()
            .producer(self.producer_id, self.producer_epoch, NO_SEQUENCE)
            .attributes(attributes)
            .record(self.timestamp, Some(&key), Some(&value))
            .build()
    }
}

#[cfg(test)]
mod tests {
    //! A marker has Kafka's bytes, reads back, and no bytes make reading one panic.
    use super::*;
    use crate::batch::HEADER_BYTES;
    use proptest::prelude::*;

    #[test]
    fn a_marker_has_kafkas_bytes() {
        let marker = EndTransactionMarker {
            producer_id: 0x0102,
            producer_epoch: 3,
            coordinator_epoch: 0x0405_0607,
            committed: true,
            timestamp: 9,
        };
        let batch = marker.build().expect("a batch");
        let header = BatchHeader::parse(&batch).expect("a header");
        assert_eq!(header.attributes.0, 0x30, "transactional and control");
        assert_eq!((header.producer_id, header.producer_epoch), (0x0102, 3));
        assert_eq!((header.base_sequence, header.record_count), (-1, 1));
        // Length 16, attributes, timestamp and offset 0, a key of 4 bytes, a value of 6, no headers; varints are zigzag.
        let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 4, 5, 6, 7, 0];
        assert_eq!(batch[HEADER_BYTES..], record);
        let read = EndTransactionMarker::of(&header, &batch[HEADER_BYTES..]);
        assert_eq!(read, Ok(Some(marker)));
    }

    #[test]
    fn other_control_records_are_no_markers() {
        let bits = Attributes::default().with_control(true);
        let build = |bits: Attributes, kind: u8| {
            let key = [0, 0, 0, kind];
            let builder = BatchBuilder::new().producer(1, 0, NO_SEQUENCE);
            let builder = builder
                .attributes(bits)
                .record(0, Some(&key), Some(&[0; 6]));
            builder.build().expect("a batch")
        };
        let read = |batch: &[u8]| {
            let header = BatchHeader::parse(batch).expect("a header");
            EndTransactionMarker::of(&header, &batch[HEADER_BYTES..])
        };
        // A leader's change, and a kind to come.
        assert_eq!(read(&build(bits, 2)), Ok(None));
        assert_eq!(read(&build(bits.with_transactional(true), 7)), Ok(None));
        let abort = read(&build(bits.with_transactional(true), 0));
        assert!(abort.is_ok_and(|marker| marker.is_some_and(|marker| !marker.committed)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(records in proptest::collection::vec(any::<u8>(), 0..64), bits in any::<i16>()) {
            let header = BatchHeader {
                record_count: 1,
                producer_id: 1,
                attributes: Attributes(bits | 0x30),
                ..BatchHeader::parse(&EndTransactionMarker {
                    producer_id: 1,
                    producer_epoch: 0,
                    coordinator_epoch: 0,
                    committed: false,
                    timestamp: 0,
                }.build().expect("a batch")).expect("a header")
            };
            let _ = EndTransactionMarker::of(&header, &records);
        }
    }
}
