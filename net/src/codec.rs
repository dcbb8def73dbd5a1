//! Reading and writing the wire's primitive types.
//!
//! [`Reader`] walks over one frame that has arrived whole; what it hands out are slices of that frame, never copies.
//! [`Writer`] gathers a message: small fields in one buffer of its own, record payloads by reference between them.
//! Neither does I/O, neither panics on input, and the reader allocates in proportion to the frame, never to what a
//! length in it claims: every decoded element is charged against a budget that follows from the frame's size.

mod error;
mod reader;
mod writer;

pub use self::error::{DecodeError, EncodeError, UnsupportedVersion};
pub use self::reader::Reader;
pub use self::writer::Writer;
use crate::VersionRange;

/// A struct that knows its form on the wire, version by version. Implemented by generated code only.
pub trait Message: Sized {
    /// Reads the struct in a version.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not such a struct.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes the struct in a version.
    ///
    /// # Errors
    /// [`EncodeError`] when the version cannot carry what the struct says. What was written until then is of no use.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// A [`Message`] that stands alone: a request, a response, a record.
pub trait TopLevel: Message {
    /// Kafka's name of the message.
    const NAME: &'static str;
    /// The versions that are described here.
    const VERSIONS: VersionRange;
    /// The first version with compact lengths and tagged fields (KIP-482), if any.
    const FLEXIBLE_FROM: Option<i16>;

    /// Checks that the message has a version.
    fn check(version: i16) -> Result<(), UnsupportedVersion> {
        if Self::VERSIONS.contains(version) {
            Ok(())
        } else {
            Err(UnsupportedVersion {
                message: Self::NAME,
                version,
                versions: Self::VERSIONS,
            })
        }
    }
}
