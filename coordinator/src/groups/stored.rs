//! The form of what is stored in `__consumer_offsets`, in Kafka's versions, so that Kafka's tools read it.

use bytes::Bytes;
use ringlog_net::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use ringlog_net::coordinators::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use ringlog_net::{Str, Uuid};

use super::consumer::Unreadable;
use super::offsets::{CommittedOffset, NO_TIMESTAMP};
use crate::Record;

/// Types of keys.
const OFFSET_COMMIT_OLD: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;
/// Keys have one version each.
const KEY_VERSION: i16 = 0;
const GROUP_METADATA_VERSION: i16 = 3;
const OFFSET_COMMIT_VERSION: i16 = 4;
/// The only version with a time at which the offset expires.
const OFFSET_COMMIT_EXPIRING_VERSION: i16 = 1;
/// What a record takes in a batch besides its key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A record that was loaded.
#[derive(Debug)]
pub(crate) enum Stored {
    /// An offset, or none if it is deleted.
    Offset {
        group: Str,
        topic: Str,
        partition: i32,
        offset: Option<CommittedOffset>,
    },
    /// A classic group, or none if it is deleted.
    Group {
        group: Str,
        value: Option<GroupMetadataValue>,
    },
    /// Of a type that is not known here.
    Unknown,
}

/// Why a record of the log cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// Its key or value cannot be read.
    Unreadable(DecodeError),
    /// It contradicts itself.
    Contradiction(&'static str),
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReplayError::Unreadable(error) => write!(out, "unreadable: {error}"),
            ReplayError::Contradiction(problem) => out.write_str(problem),
        }
    }
}

impl std::error::Error for ReplayError {}

impl From<DecodeError> for ReplayError {
    fn from(error: DecodeError) -> Self {
        ReplayError::Unreadable(error)
    }
}

impl From<Unreadable> for ReplayError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Malformed(error) => ReplayError::Unreadable(error),
            Unreadable::Version(_) => {
                ReplayError::Contradiction("a value of a version that is not known here")
            }
        }
    }
}

/// What a record takes in a batch, at most, in bytes.
pub(crate) fn batch_bytes(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.key.len() + record.value.as_ref().map_or(0, Bytes::len)
}

/// Two bytes of type or version, and a body.
fn encode(prefix: i16, body: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.i16(prefix);
    body.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

fn offset_key(group: &Str, topic: &Str, partition: i32) -> Result<Bytes, EncodeError> {
    let key = OffsetCommitKey {
        group: group.clone(),
        topic: topic.clone(),
        partition,
    };
    encode(OFFSET_COMMIT, &key, KEY_VERSION)
}

/// The record of a committed offset.
///
/// # Errors
/// [`EncodeError`] when a name is longer than the form allows.
pub(crate) fn offset(
    group: &Str,
    topic: &Str,
    partition: i32,
    offset: &CommittedOffset,
) -> Result<Record, EncodeError> {
    let expires = offset.expire_timestamp_ms != NO_TIMESTAMP;
    let version = if expires {
        OFFSET_COMMIT_EXPIRING_VERSION
    } else {
        OFFSET_COMMIT_VERSION
    };
    let value = OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata(),
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms,
        topic_id: offset.topic_id,
    };
    Ok(Record {
        key: offset_key(group, topic, partition)?,
        value: Some(encode(version, &value, version)?),
    })
}

/// The record that deletes a committed offset.
///
/// # Errors
/// [`EncodeError`] when a name is longer than the form allows; no stored one is.
pub(crate) fn offset_tombstone(
    group: &Str,
    topic: &Str,
    partition: i32,
) -> Result<Record, EncodeError> {
    Ok(Record {
        key: offset_key(group, topic, partition)?,
        value: None,
    })
}

/// The record of a classic group.
///
/// # Errors
/// [`EncodeError`] when a name is longer than the form allows.
pub(crate) fn group(group: &Str, value: &GroupMetadataValue) -> Result<Record, EncodeError> {
    Ok(Record {
        key: group_key(group)?,
        value: Some(encode(
            GROUP_METADATA_VERSION,
            value,
            GROUP_METADATA_VERSION,
        )?),
    })
}

/// The record that deletes a classic group.
///
/// # Errors
/// [`EncodeError`] when the name is longer than the form allows; no stored one is.
pub(crate) fn group_tombstone(group: &Str) -> Result<Record, EncodeError> {
    Ok(Record {
        key: group_key(group)?,
        value: None,
    })
}

fn group_key(group: &Str) -> Result<Bytes, EncodeError> {
    let key = GroupMetadataKey {
        group: group.clone(),
    };
    encode(GROUP_METADATA, &key, KEY_VERSION)
}

/// Reads a record. What it returns shares memory with the record.
///
/// # Errors
/// [`ReplayError::Unreadable`].
pub(crate) fn read(key: Bytes, value: Option<Bytes>) -> Result<Stored, ReplayError> {
    let mut reader = Reader::new(key);
    match reader.i16()? {
        OFFSET_COMMIT_OLD | OFFSET_COMMIT => {
            let key = OffsetCommitKey::decode(&mut reader, KEY_VERSION)?;
            let offset = match value {
                None => None,
                Some(value) => {
                    let mut reader = Reader::new(value);
                    let version = reader.i16()?;
                    let value = OffsetCommitValue::decode(&mut reader, version)?;
                    Some(committed(&value))
                }
            };
            Ok(Stored::Offset {
                group: key.group,
                topic: key.topic,
                partition: key.partition,
                offset,
            })
        }
        GROUP_METADATA => {
            let key = GroupMetadataKey::decode(&mut reader, KEY_VERSION)?;
            let value = match value {
                None => None,
                Some(value) => {
                    let mut reader = Reader::new(value);
                    let version = reader.i16()?;
                    Some(GroupMetadataValue::decode(&mut reader, version)?)
                }
            };
            Ok(Stored::Group {
                group: key.group,
                value,
            })
        }
        _ => Ok(Stored::Unknown),
    }
}

fn committed(value: &OffsetCommitValue) -> CommittedOffset {
    CommittedOffset::new(
        value.offset,
        value.leader_epoch,
        &value.metadata,
        value.commit_timestamp,
        value.expire_timestamp,
        value.topic_id,
    )
}

/// A topic id as a commit carries it; zero when it has none.
pub(crate) const NO_TOPIC_ID: Uuid = Uuid::ZERO;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_has_the_form_kafka_gives_it() {
        let committed = CommittedOffset::new(7, 2, "m", 1_000, NO_TIMESTAMP, NO_TOPIC_ID);
        let record = offset(&"g".into(), &"t".into(), 3, &committed).expect("short names");
        assert_eq!(
            &record.key[..],
            [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3],
            "type 1, group, topic, partition"
        );
        let mut value = vec![0, 4];
        value.extend(7i64.to_be_bytes());
        value.extend(2i32.to_be_bytes());
        value.extend([2, b'm']);
        value.extend(1_000i64.to_be_bytes());
        value.push(0);
        assert_eq!(record.value.as_deref(), Some(&value[..]));
    }

    #[test]
    fn an_offset_that_expires_by_itself_is_of_version_1() {
        let committed = CommittedOffset::new(7, -1, "", 1_000, 2_000, NO_TOPIC_ID);
        let record = offset(&"g".into(), &"t".into(), 3, &committed).expect("short names");
        let mut value = vec![0, 1];
        value.extend(7i64.to_be_bytes());
        value.extend([0, 0]);
        value.extend(1_000i64.to_be_bytes());
        value.extend(2_000i64.to_be_bytes());
        assert_eq!(record.value.as_deref(), Some(&value[..]));
        let Ok(Stored::Offset { offset, .. }) = read(record.key, record.value) else {
            panic!("an offset");
        };
        assert_eq!(offset, Some(committed));
    }

    #[test]
    fn a_group_has_the_form_kafka_gives_it() {
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: None,
            leader: None,
            current_state_timestamp: 9,
            members: Vec::new(),
        };
        let record = group(&"g".into(), &value).expect("short names");
        assert_eq!(&record.key[..], [0, 2, 0, 1, b'g']);
        let mut bytes = vec![0, 3, 0, 8];
        bytes.extend(b"consumer");
        bytes.extend(5i32.to_be_bytes());
        bytes.extend([0xff, 0xff, 0xff, 0xff]);
        bytes.extend(9i64.to_be_bytes());
        bytes.extend([0; 4]);
        assert_eq!(record.value.as_deref(), Some(&bytes[..]));
    }

    #[test]
    fn other_types_are_left_alone_and_damage_is_reported() {
        let key = Bytes::from_static(&[0, 16, 1, 2]);
        assert!(matches!(read(key, None), Ok(Stored::Unknown)));
        assert!(read(Bytes::from_static(&[0]), None).is_err());
        assert!(read(Bytes::from_static(&[0, 2, 0, 9]), None).is_err());
        let key = Bytes::from_static(&[0, 2, 0, 1, b'g']);
        let value = Bytes::from_static(&[0, 99]);
        assert!(read(key, Some(value)).is_err(), "a version to come");
    }
}
