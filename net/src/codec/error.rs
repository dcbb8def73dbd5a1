//! What can be wrong with bytes that arrive, and with a message that is to be sent.

use thiserror::Error;

use crate::VersionRange;

/// A message does not have a version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message} has no version {version} here, only {versions}")]
pub struct UnsupportedVersion {
    /// The message's name.
    pub message: &'static str,
    /// The version asked for.
    pub version: i16,
    /// The versions there are.
    pub versions: VersionRange,
}

/// Why bytes are not the message they claim to be. The sender is at fault: close its connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A field reaches beyond the bytes that arrived.
    #[error(
        "byte {position}: a field of {needed} bytes does not fit into the {remaining} that are left"
    )]
    Truncated {
        /// Where the field's content starts, in bytes from the start of what is read.
        position: usize,
        /// The field's length in bytes, as claimed.
        needed: usize,
        /// The bytes that are there.
        remaining: usize,
    },
    /// A length is negative although only −1, for null, may be.
    #[error("byte {position}: length {length} is negative")]
    NegativeLength {
        /// Where the length stands.
        position: usize,
        /// The length as read.
        length: i64,
    },
    /// A field is null in a version in which it must not be.
    #[error("byte {position}: null where this version of the message requires a value")]
    UnexpectedNull {
        /// Where the null stands.
        position: usize,
    },
    /// A string is not UTF-8.
    #[error("byte {position}: the string is not UTF-8")]
    NotUtf8 {
        /// Where the string's content starts.
        position: usize,
    },
    /// A variable-length integer does not end, or does not fit its type.
    #[error("byte {position}: the variable-length integer does not fit its type")]
    BadVarint {
        /// Where the integer starts.
        position: usize,
    },
    /// An array claims more elements than its bytes can hold.
    #[error(
        "byte {position}: {elements} elements cannot be in the {remaining} bytes that are left"
    )]
    ArrayTooLong {
        /// Where the first element would start.
        position: usize,
        /// The number of elements, as claimed.
        elements: usize,
        /// The bytes that are there.
        remaining: usize,
    },
    /// The message is made of so many tiny elements that holding them would take far more memory than the message.
    #[error(
        "byte {position}: {elements} elements would need {needed} bytes of memory, more than a message of this size may use; send smaller requests"
    )]
    TooMuchMemory {
        /// Where the first element would start.
        position: usize,
        /// The number of elements.
        elements: usize,
        /// The memory they need, in bytes.
        needed: usize,
    },
    /// A tagged field's content is not as long as its size says.
    #[error("byte {position}: tagged field {tag} is not as long as its size says")]
    TaggedFieldSize {
        /// Where the field's content ended.
        position: usize,
        /// The field's tag.
        tag: u32,
    },
    /// Bytes are left after the end of the message.
    #[error("byte {position}: {remaining} bytes follow the end of the message")]
    TrailingBytes {
        /// Where the message ended.
        position: usize,
        /// How many bytes follow.
        remaining: usize,
    },
    /// The version is none that this message has here.
    #[error(transparent)]
    UnsupportedVersion(#[from] UnsupportedVersion),
    /// A metadata record's frame version or key is unknown.
    #[error("a metadata record of frame version {frame_version} and key {key} is unknown here")]
    UnknownRecord {
        /// The version of the frame around the record.
        frame_version: u32,
        /// The record's key.
        key: u32,
    },
}

/// Why a message cannot be written in a version. The one who built it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A field that matters is set but the version has no place for it, or it is null where it must not be.
    #[error(
        "{message}.{field} cannot be expressed in version {version}: leave it at its default or use another version"
    )]
    NotRepresentable {
        /// The struct's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A string, array or payload is longer than the wire can say.
    #[error("{length} bytes or elements are more than the wire's limit of {limit}")]
    TooLong {
        /// The length that was to be written.
        length: usize,
        /// The longest the field can be.
        limit: usize,
    },
    /// The version is none that this message has here.
    #[error(transparent)]
    UnsupportedVersion(#[from] UnsupportedVersion),
}
