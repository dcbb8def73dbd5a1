//! The decoding half of the codec: see [`Reader`].

use bytes::Bytes;

use super::DecodeError;
use crate::{ErrorCode, Records, Str, Uuid};

/// Memory that decoded elements may take beyond this is [`MEMORY_PER_BYTE`] times the frame's size.
const MEMORY_FREE_MAX: usize = 4 << 20;
/// Small frames may use this many times their size, up to [`MEMORY_FREE_MAX`] in all.
const MEMORY_PER_BYTE_FREE: usize = 64;
/// What frames of any size may use, as a multiple of their size.
const MEMORY_PER_BYTE: usize = 4;

/// A position in the bytes of one message.
///
/// Strings, bytes and records that it returns share the memory of what it reads, so whoever keeps one for long keeps
/// the whole frame: see [`Str::detached`].
#[derive(Clone, Debug)]
pub struct Reader {
    data: Bytes,
    position: usize,
    /// Memory that may still be spent on array elements, in bytes.
    budget: usize,
}

impl Reader {
    /// Reads from the start of `data`.
    pub fn new(data: impl Into<Bytes>) -> Reader {
        let data = data.into();
        let size = data.len();
        let free = size
            .saturating_mul(MEMORY_PER_BYTE_FREE)
            .min(MEMORY_FREE_MAX);
        Reader {
            budget: size.saturating_mul(MEMORY_PER_BYTE).saturating_add(free),
            data,
            position: 0,
        }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.data.len() - self.position
    }

    /// Checks that everything has been read.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes {
                position: self.position,
                remaining,
            }),
        }
    }

    fn advance(&mut self, length: usize) -> Result<usize, DecodeError> {
        let start = self.position;
        if length > self.remaining() {
            return Err(DecodeError::Truncated {
                position: start,
                needed: length,
                remaining: self.remaining(),
            });
        }
        self.position += length;
        Ok(start)
    }

    fn array_of_bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let unread = self.data.get(self.position..).unwrap_or_default();
        let Some(value) = unread.first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                position: self.position,
                needed: N,
                remaining: unread.len(),
            });
        };
        let value = *value;
        self.position += N;
        Ok(value)
    }

    /// One byte; anything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// One byte.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.array_of_bytes()?))
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array_of_bytes()?))
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array_of_bytes()?))
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array_of_bytes()?))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array_of_bytes()?))
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array_of_bytes()?))
    }

    /// Eight bytes, IEEE 754 big-endian.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.array_of_bytes()?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.array_of_bytes()?))
    }

    /// An error code of two bytes.
    pub fn error_code(&mut self) -> Result<ErrorCode, DecodeError> {
        Ok(ErrorCode(self.i16()?))
    }

    /// An unsigned variable-length integer of at most five bytes, seven bits each, lowest first.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let start = self.position;
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of_bytes()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadVarint { position: start })
    }

    /// The length of a string: `None` is null.
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        let position = self.position;
        let length = self.i16()?;
        signed_length(i64::from(length), position)
    }

    /// The length of bytes, records or an array: `None` is null.
    fn long_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        let position = self.position;
        let length = self.i32()?;
        signed_length(i64::from(length), position)
    }

    fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let start = self.advance(length)?;
        Ok(self.data.slice(start..self.position))
    }

    /// A string that must not be null.
    pub fn string(&mut self, flexible: bool) -> Result<Str, DecodeError> {
        self.nullable_string(flexible, false)
            .map(Option::unwrap_or_default)
    }

    /// A string; null is an error unless `nullable`.
    pub fn nullable_string(
        &mut self,
        flexible: bool,
        nullable: bool,
    ) -> Result<Option<Str>, DecodeError> {
        let position = self.position;
        let Some(length) = self.string_length(flexible)? else {
            return null(nullable, position);
        };
        let position = self.position;
        match Str::from_utf8(self.slice(length)?) {
            Some(string) => Ok(Some(string)),
            None => Err(DecodeError::NotUtf8 { position }),
        }
    }

    /// Bytes that must not be null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(flexible, false)
            .map(Option::unwrap_or_default)
    }

    /// Bytes; null is an error unless `nullable`.
    pub fn nullable_bytes(
        &mut self,
        flexible: bool,
        nullable: bool,
    ) -> Result<Option<Bytes>, DecodeError> {
        let position = self.position;
        match self.long_length(flexible)? {
            None => null(nullable, position),
            Some(length) => self.slice(length).map(Some),
        }
    }

    /// Record batches; null is read as none at all.
    pub fn records(&mut self, flexible: bool) -> Result<Records, DecodeError> {
        self.nullable_records(flexible, true)
            .map(Option::unwrap_or_default)
    }

    /// Record batches; null is an error unless `nullable`.
    pub fn nullable_records(
        &mut self,
        flexible: bool,
        nullable: bool,
    ) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes(flexible, nullable)?.map(Records::from))
    }

    /// An array that must not be null; `element_bytes_min` is the fewest bytes one element takes.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(flexible, false, element_bytes_min, element)
            .map(Option::unwrap_or_default)
    }

    /// An array; null is an error unless `nullable`. `element_bytes_min` is the fewest bytes one element takes.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        nullable: bool,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let position = self.position;
        let Some(elements) = self.long_length(flexible)? else {
            return null(nullable, position);
        };
        self.charge(elements, element_bytes_min, size_of::<T>())?;
        let mut array = Vec::with_capacity(elements);
        for _ in 0..elements {
            array.push(element(self)?);
        }
        Ok(Some(array))
    }

    /// Checks that so many elements can be there and may be held.
    fn charge(
        &mut self,
        elements: usize,
        wire_bytes_min: usize,
        memory_bytes: usize,
    ) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if elements.saturating_mul(wire_bytes_min) > remaining {
            return Err(DecodeError::ArrayTooLong {
                position: self.position,
                elements,
                remaining,
            });
        }
        let needed = elements.saturating_mul(memory_bytes.max(1));
        match self.budget.checked_sub(needed) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(DecodeError::TooMuchMemory {
                position: self.position,
                elements,
                needed,
            }),
        }
    }

    /// A struct that may be null, told by the byte before it.
    pub fn nullable_struct<T>(
        &mut self,
        nullable: bool,
        structure: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        let position = self.position;
        if self.i8()? < 0 {
            return null(nullable, position);
        }
        structure(self).map(Some)
    }

    /// The tagged fields at the end of a flexible struct. `known` reads the field of a tag it knows and says so;
    /// the others are skipped.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let fields = self.uvarint()?;
        for _ in 0..fields {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let start = self.advance(size)?;
            let end = self.position;
            self.position = start;
            if !known(tag, self)? {
                self.position = end;
            } else if self.position != end {
                return Err(DecodeError::TaggedFieldSize {
                    position: self.position,
                    tag,
                });
            }
        }
        Ok(())
    }

    /// Skips the tagged fields of a struct that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

fn signed_length(length: i64, position: usize) -> Result<Option<usize>, DecodeError> {
    match usize::try_from(length) {
        Ok(length) => Ok(Some(length)),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(DecodeError::NegativeLength { position, length }),
    }
}

fn null<T>(nullable: bool, position: usize) -> Result<Option<T>, DecodeError> {
    if nullable {
        Ok(None)
    } else {
        Err(DecodeError::UnexpectedNull { position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_varints_end_where_their_type_does() {
        let read = |bytes: &'static [u8]| Reader::new(bytes).uvarint();
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        let bad = Err(DecodeError::BadVarint { position: 0 });
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), bad);
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), bad);
        assert!(matches!(read(&[0x80]), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn only_minus_one_is_null() {
        let read = |bytes: &'static [u8]| Reader::new(bytes).nullable_string(false, true);
        assert_eq!(read(&[0xff, 0xff]), Ok(None));
        assert_eq!(
            read(&[0xff, 0xfe]),
            Err(DecodeError::NegativeLength {
                position: 0,
                length: -2
            })
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff][..]).string(false),
            Err(DecodeError::UnexpectedNull { position: 0 })
        );
    }

    #[test]
    fn a_tagged_field_must_fill_its_size() {
        // One field, tag 0, of two bytes, of which the reader takes one.
        let mut reader = Reader::new(&[1, 0, 2, 7, 7][..]);
        let result = reader.tagged_fields(|_, reader| reader.i8().map(|_| true));
        assert_eq!(
            result,
            Err(DecodeError::TaggedFieldSize {
                position: 4,
                tag: 0
            })
        );
    }

    #[test]
    fn an_array_cannot_claim_more_than_its_bytes_hold() {
        let mut bytes = vec![0, 0, 0, 3];
        bytes.extend_from_slice(&[0; 11]);
        assert_eq!(
            Reader::new(bytes.clone()).array(false, 4, Reader::i32),
            Err(DecodeError::ArrayTooLong {
                position: 4,
                elements: 3,
                remaining: 11
            })
        );
        bytes.push(7);
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.array(false, 4, Reader::i32), Ok(vec![0, 0, 7]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn strings_are_utf8() {
        assert_eq!(
            Reader::new(&[3, 0xc3, 0x28][..]).string(true),
            Err(DecodeError::NotUtf8 { position: 1 })
        );
    }
}
