//! The values that messages are made of, beyond Rust's own: strings, UUIDs and record batches.
//!
//! Strings and records share the memory of the frame they were read from, so cloning them is cheap and keeping them
//! keeps the frame.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use bytes::Bytes;
use bytestring::ByteString;
use thiserror::Error;

/// An immutable UTF-8 string that is cheap to clone: a slice of the frame it was read from, or memory of its own.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Str(ByteString);

impl Str {
    /// A string known when the program is compiled.
    pub const fn from_static(text: &'static str) -> Str {
        Str(ByteString::from_static(text))
    }

    /// The string in `bytes`, if they are UTF-8; nothing is copied.
    pub fn from_utf8(bytes: Bytes) -> Option<Str> {
        ByteString::try_from(bytes).ok().map(Str)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy that owns its memory. Take it of strings that outlive the request, so that they do not hold its frame.
    pub fn detached(&self) -> Str {
        Str::from(self.as_str())
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str(ByteString::from(text))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str(ByteString::from(text))
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Str {
        Str::from(text.as_str())
    }
}

impl From<Str> for String {
    fn from(text: Str) -> String {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), out)
    }
}

/// A 128-bit identifier, written as Kafka writes it: base64 in the URL alphabet, without padding (KIP-516).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// 128 bits in sixes.
const UUID_CHARACTERS: usize = 22;

impl Uuid {
    /// All zero: no identifier at all.
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// The identifier of the topic `__cluster_metadata`.
    pub const METADATA_TOPIC: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        // 22 characters carry 132 bits: the last four of them are zero.
        for index in 0..UUID_CHARACTERS {
            let sextet = if index + 1 == UUID_CHARACTERS {
                (bits << 4) & 0x3f
            } else {
                (bits >> (122 - 6 * index)) & 0x3f
            };
            write!(out, "{}", char::from(BASE64_URL[sextet as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A text is not a [`Uuid`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a UUID: 22 characters of A–Z, a–z, 0–9, - and _ are needed")]
pub struct UuidError(String);

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Uuid, UuidError> {
        let bad = || UuidError(text.chars().take(2 * UUID_CHARACTERS).collect());
        if text.len() != UUID_CHARACTERS {
            return Err(bad());
        }
        let mut bits: u128 = 0;
        for (index, character) in text.bytes().enumerate() {
            let sextet = BASE64_URL
                .iter()
                .position(|known| *known == character)
                .ok_or_else(bad)? as u128;
            if index + 1 < UUID_CHARACTERS {
                bits = bits << 6 | sextet;
            } else if sextet & 0x0f == 0 {
                bits = bits << 2 | sextet >> 4;
            } else {
                return Err(bad());
            }
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

/// Record batches in wire format: an ordered list of pieces that are never copied, read, or checked here.
#[derive(Clone, Default)]
pub struct Records(Pieces);

#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Pieces {
    fn default() -> Self {
        Pieces::One(Bytes::new())
    }
}

impl Records {
    /// The length of all pieces together, in bytes.
    pub fn len(&self) -> usize {
        self.pieces().iter().map(Bytes::len).sum()
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.0 {
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// Everything in one piece; copies only when there are several.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Pieces::One(piece) => piece.clone(),
            Pieces::Many(pieces) => Bytes::from(pieces.concat()),
        }
    }
}

impl From<Bytes> for Records {
    fn from(piece: Bytes) -> Records {
        Records(Pieces::One(piece))
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(pieces: Vec<Bytes>) -> Records {
        Records(Pieces::Many(pieces))
    }
}

/// Equal content, however it is cut into pieces.
impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.len() == other.len()
            && self
                .pieces()
                .iter()
                .flatten()
                .eq(other.pieces().iter().flatten())
    }
}

impl Eq for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Records({} bytes in {} pieces)",
            self.len(),
            self.pieces().len()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uuids_are_written_as_kafka_writes_them() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        let all = Uuid([0xff; 16]);
        assert_eq!(all.to_string(), "_____________________w");
        assert_eq!("_____________________w".parse(), Ok(all));
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAA+A",
            // Its last character carries bits that a UUID does not have.
            "AAAAAAAAAAAAAAAAAAAAAB",
            "ääääääääääää",
        ] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn records_are_equal_by_content() {
        let cut = Records::from(vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"c"),
        ]);
        let whole = Records::from(Bytes::from_static(b"abc"));
        assert_eq!(cut, whole);
        assert_eq!((cut.len(), cut.to_bytes()), (3, whole.to_bytes()));
        assert_ne!(cut, Records::from(Bytes::from_static(b"abd")));
        assert_ne!(cut, Records::default());
    }

    #[test]
    fn a_detached_string_lets_the_frame_go() {
        let frame = Bytes::from(b"topic and the rest of a frame".to_vec());
        let slice = Str::from_utf8(frame.slice(..5)).expect("UTF-8");
        let detached = slice.detached();
        assert_eq!(detached, slice);
        drop(slice);
        assert!(frame.is_unique());
        assert_eq!(detached, "topic");
    }

    proptest! {
        #[test]
        fn uuids_survive_text(bytes: [u8; 16]) {
            prop_assert_eq!(Uuid(bytes).to_string().parse(), Ok(Uuid(bytes)));
        }
    }
}
