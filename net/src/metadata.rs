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
