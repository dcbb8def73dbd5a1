//! The form of a proposal in the metadata log: one uncompressed record batch, as KRaft writes them.
//!
//! A batch's leader epoch is the term it was proposed in, its base offset its place; records take one offset each. A term opens with a control batch
//! that names its leader (KIP-595). Pure: bytes to records and back.

use bytes::Bytes;
use ringlog_engine::batch::{Attributes, Batch, BatchBuilder, Compression, Records};
use ringlog_net::Uuid;
use ringlog_net::codec::{Message, Writer};
use ringlog_net::metadata::{LeaderChangeMessage, MetadataRecord, Voter};

/// Version of a control record's key.
const CONTROL_KEY_VERSION: i16 = 0;
/// Type of the control record that opens a term.
const LEADER_CHANGE: i16 = 2;
/// Version of its body that every Kafka tool reads.
const LEADER_CHANGE_VERSION: i16 = 0;

/// A batch that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata batch at offset {offset}: {reason}")]
pub struct BadBatch {
    /// Where it is or should have been.
    pub offset: i64,
    /// What is wrong.
    pub reason: String,
}

impl BadBatch {
    fn new(offset: i64, reason: impl ToString) -> Self {
        Self {
            offset,
            reason: reason.to_string(),
        }
    }
}

/// What a batch of the log holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Records of the metadata.
    Records(Vec<MetadataRecord>),
    /// The log's own affairs: a new term.
    Control,
}

/// Encodes records as one batch at `base_offset` in term `epoch`.
///
/// # Errors
/// A record that its version cannot carry, or more bytes than a batch can have.
pub fn encode(
    base_offset: i64,
    epoch: i32,
    timestamp_ms: i64,
    records: &[MetadataRecord],
) -> Result<Bytes, BadBatch> {
    let bad = |reason: String| BadBatch::new(base_offset, reason);
    let mut builder = BatchBuilder::new().at(base_offset, epoch);
    for record in records {
        let value = record.encode().map_err(|error| bad(error.to_string()))?;
        builder.push(timestamp_ms, None, Some(&value), &[]);
    }
    builder
        .build()
        .map(Bytes::from)
        .map_err(|error| bad(error.to_string()))
}

/// The control batch that opens term `epoch`, led by `leader` alone.
///
/// # Errors
/// None that can be helped; passed on rather than hidden.
pub fn encode_leader_change(
    base_offset: i64,
    epoch: i32,
    timestamp_ms: i64,
    leader: i32,
) -> Result<Bytes, BadBatch> {
    let voter = Voter {
        voter_id: leader,
        voter_directory_id: Uuid::ZERO,
    };
    let message = LeaderChangeMessage {
        version: LEADER_CHANGE_VERSION,
        leader_id: leader,
        voters: vec![voter.clone()],
        granting_voters: vec![voter],
    };
    encode_control(
        base_offset,
        epoch,
        timestamp_ms,
        LEADER_CHANGE,
        &message,
        LEADER_CHANGE_VERSION,
    )
}

/// A batch of one control record.
pub(super) fn encode_control<M: Message>(
    base_offset: i64,
    epoch: i32,
    timestamp_ms: i64,
    kind: i16,
    message: &M,
    version: i16,
) -> Result<Bytes, BadBatch> {
    let mut key = [0; 4];
    key[..2].copy_from_slice(&CONTROL_KEY_VERSION.to_be_bytes());
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .map_err(|error| BadBatch::new(base_offset, error))?;
    let value = writer.into_bytes();
    BatchBuilder::new()
        .at(base_offset, epoch)
        .attributes(Attributes::default().with_control(true))
        .record(timestamp_ms, Some(&key), Some(&value))
        .build()
        .map(Bytes::from)
        .map_err(|error| BadBatch::new(base_offset, error))
}

/// Reads a batch of the log.
///
/// # Errors
/// A checksum that does not match, a form that is never written here, or a record that is not known.
pub fn decode(batch: &Batch<'_>) -> Result<Content, BadBatch> {
    let header = &batch.header;
    let bad = |reason: String| BadBatch::new(header.base_offset, reason);
    if !batch.checksum_matches() {
        return Err(bad(
            "its checksum does not match; restore the log from a copy".into(),
        ));
    }
    if header.attributes.compression() != Ok(Compression::None) {
        return Err(bad("it is compressed, which this log never is".into()));
    }
    if header.attributes.is_control() {
        return Ok(Content::Control);
    }
    if i64::from(header.last_offset_delta) + 1 != i64::from(header.record_count) {
        return Err(bad("its offsets have gaps, which this log never has".into()));
    }
    let mut records = Vec::new();
    for record in Records::new(batch.payload(), header.record_count) {
        let record = record.map_err(|error| bad(error.to_string()))?;
        let value = record
            .value
            .ok_or_else(|| bad("a record has no value".into()))?;
        let value = Bytes::copy_from_slice(value);
        records.push(MetadataRecord::decode(value).map_err(|error| bad(error.to_string()))?);
    }
    Ok(Content::Records(records))
}

#[cfg(test)]
mod tests {
    //! What is written reads back, at its place and in its term; damage and foreign forms are refused with a reason.
    use ringlog_engine::batch::{HEADER_BYTES, batches, seal};
    use ringlog_net::Str;
    use ringlog_net::metadata::{ConfigRecord, NoOpRecord};

    use super::*;

    fn records() -> Vec<MetadataRecord> {
        let config = ConfigRecord {
            resource_type: 2,
            resource_name: Str::from("t"),
            name: Str::from("k"),
            value: None,
        };
        vec![
            MetadataRecord::NoOp(NoOpRecord {}),
            MetadataRecord::Config(config),
        ]
    }

    #[test]
    fn records_read_back() {
        let bytes = encode(7, 3, 1000, &records()).unwrap();
        let batch = batches(&bytes).next().unwrap().unwrap();
        assert_eq!(
            (
                batch.header.base_offset,
                batch.header.leader_epoch,
                batch.header.next_offset()
            ),
            (7, 3, 9)
        );
        assert_eq!(decode(&batch), Ok(Content::Records(records())));
    }

    #[test]
    fn a_term_opens_with_a_control_batch() {
        let bytes = encode_leader_change(9, 4, 1000, 1).unwrap();
        let batch = batches(&bytes).next().unwrap().unwrap();
        assert!(batch.header.attributes.is_control());
        assert_eq!(decode(&batch), Ok(Content::Control));
        let record = Records::new(batch.payload(), 1).next().unwrap().unwrap();
        assert_eq!(record.key, Some(&[0, 0, 0, 2][..]));
    }

    #[test]
    fn damage_is_refused() {
        let bytes = encode(0, 1, 0, &records()).unwrap();
        for at in 21..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            if let Some(Ok(batch)) = batches(&damaged).next() {
                assert!(decode(&batch).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn counts_that_contradict_the_offsets_are_refused() {
        let bytes = encode(0, 1, 0, &records()).unwrap();
        let mut header = batches(&bytes).next().unwrap().unwrap().header;
        for (record_count, last_offset_delta) in
            [(i32::MIN, i32::MAX), (0, 0), (1, 1), (-1, 1), (3, 1)]
        {
            header.record_count = record_count;
            header.last_offset_delta = last_offset_delta;
            let mut damaged = [&header.encode(), &bytes[HEADER_BYTES..]].concat();
            seal(&mut damaged);
            let batch = batches(&damaged).next().unwrap().unwrap();
            let error = decode(&batch).unwrap_err();
            assert!(error.reason.contains("gaps"), "{record_count}: {error}");
        }
    }
}
