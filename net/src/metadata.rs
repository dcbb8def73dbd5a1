//! The records of the cluster metadata log, generated from `messages/metadata/*.msg`, and the frame around them.
//!
//! A record's value is three unsigned varints, the frame version, the record's key and its version, and then the record
//! itself (KIP-631), so that tools made for Kafka's metadata log read ours.

include!(concat!(env!("OUT_DIR"), "/metadata.rs"));

/// The one version of the frame there is.
const FRAME_VERSION: u32 = 1;

impl MetadataRecord {
    /// The value of a record in the log, in the record's highest version.
    ///
    /// # Errors
    /// [`EncodeError`] when a field is longer than the wire can say.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        self.encode_version(self.facts().2)
    }

    /// The value of a record in the log, in a version.
    ///
    /// # Errors
    /// [`EncodeError`] when the version cannot carry what the record says.
    pub fn encode_version(&self, version: i16) -> Result<Bytes, EncodeError> {
        let (message, key, high) = self.facts();
        let mut writer = Writer::new();
        writer.uvarint(FRAME_VERSION);
        writer.uvarint(key);
        writer.uvarint(
            u32::try_from(version).map_err(|_| crate::codec::UnsupportedVersion {
                message,
                version,
                versions: VersionRange { low: 0, high },
            })?,
        );
        self.encode_body(&mut writer, version)?;
        Ok(writer.into_bytes())
    }

    /// The record in a value of the log.
    ///
    /// # Errors
    /// [`DecodeError`] when the value is not a record that is known here, or goes on after it.
    pub fn decode(value: Bytes) -> Result<MetadataRecord, DecodeError> {
        let mut reader = Reader::new(value);
        let frame_version = reader.uvarint()?;
        let key = reader.uvarint()?;
        let unknown = DecodeError::UnknownRecord { frame_version, key };
        if frame_version != FRAME_VERSION {
            return Err(unknown);
        }
        let position = reader.position();
        let version =
            i16::try_from(reader.uvarint()?).map_err(|_| DecodeError::BadVarint { position })?;
        let record = Self::decode_body(key, version, &mut reader)?.ok_or(unknown)?;
        reader.finish()?;
        Ok(record)
    }
}

/// What a control record says, by the number in its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum ControlRecordType {
    /// A transaction was aborted.
    Abort = 0,
    /// A transaction was committed.
    Commit = 1,
    /// A new leader begins its epoch: [`LeaderChangeMessage`].
    LeaderChange = 2,
    /// A snapshot begins: [`SnapshotHeaderRecord`].
    SnapshotHeader = 3,
    /// A snapshot ends: [`SnapshotFooterRecord`].
    SnapshotFooter = 4,
    /// The version of the quorum's own protocol: [`KRaftVersionRecord`].
    KRaftVersion = 5,
    /// The voters of the quorum: [`VotersRecord`].
    KRaftVoters = 6,
}

impl ControlRecordType {
    /// A control record's key: the key's own version, 0, and the type.
    pub const fn key(self) -> [u8; 4] {
        let [high, low] = (self as i16).to_be_bytes();
        [0, 0, high, low]
    }

    /// The type in a control record's key, if it is one that is known here.
    pub const fn from_key(key: &[u8]) -> Option<ControlRecordType> {
        let [_, _, high, low, ..] = key else {
            return None;
        };
        Some(match i16::from_be_bytes([*high, *low]) {
            0 => ControlRecordType::Abort,
            1 => ControlRecordType::Commit,
            2 => ControlRecordType::LeaderChange,
            3 => ControlRecordType::SnapshotHeader,
            4 => ControlRecordType::SnapshotFooter,
            5 => ControlRecordType::KRaftVersion,
            6 => ControlRecordType::KRaftVoters,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_kafka_frames_it() {
        let record = MetadataRecord::from(TopicRecord {
            name: Str::from("a"),
            topic_id: Uuid::METADATA_TOPIC,
        });
        let mut expected = vec![1, 2, 0, 2, b'a'];
        expected.extend_from_slice(&Uuid::METADATA_TOPIC.0);
        expected.push(0);
        assert_eq!(record.encode().as_deref(), Ok(&expected[..]));
        assert_eq!(MetadataRecord::decode(expected.into()), Ok(record));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (value, problem) in [
            (&[2, 2, 0][..], "a frame version to come"),
            (&[1, 99, 0], "an unknown key"),
            (&[1, 20, 7], "an unknown version"),
            (&[1, 20, 0, 0, 0], "a byte too many"),
            (&[1, 20, 0], "a byte too few"),
            (&[], "nothing"),
        ] {
            assert!(
                MetadataRecord::decode(Bytes::from_static(value)).is_err(),
                "{problem}"
            );
        }
        assert!(MetadataRecord::decode(Bytes::from_static(&[1, 20, 0, 0])).is_ok());
    }

    #[test]
    fn control_records_have_their_keys() {
        assert_eq!(ControlRecordType::LeaderChange.key(), [0, 0, 0, 2]);
        for number in 0..7 {
            let kind = ControlRecordType::from_key(&[0, 0, 0, number]).expect("a known type");
            assert_eq!(kind.key(), [0, 0, 0, number]);
        }
        assert_eq!(ControlRecordType::from_key(&[0, 0, 0, 7]), None);
        assert_eq!(ControlRecordType::from_key(&[0, 0, 0]), None);
    }

    #[test]
    fn a_leader_change_names_the_voters() {
        let voter = Voter {
            voter_id: 1,
            voter_directory_id: Uuid::ZERO,
        };
        let message = LeaderChangeMessage {
            version: 1,
            leader_id: 1,
            voters: vec![voter.clone()],
            granting_voters: vec![voter],
        };
        let mut writer = Writer::new();
        message.encode(&mut writer, 1).expect("a short message");
        let value = writer.into_bytes();
        assert_eq!(value.len(), 2 + 4 + 2 * (1 + 4 + 16 + 1) + 1);
        let mut reader = Reader::new(value);
        assert_eq!(LeaderChangeMessage::decode(&mut reader, 1), Ok(message));
        assert_eq!(reader.finish(), Ok(()));
    }
}
