//! The encoding half of the codec: see [`Writer`].

use bytes::Bytes;

use super::EncodeError;
use crate::{ErrorCode, Records, Str, Uuid};

/// A payload up to this many bytes is cheaper to copy than to send as a piece of its own.
const COPY_MAX: usize = 512;
/// What most small messages fit into without growing.
const BUFFER_BYTES: usize = 256;

/// Gathers one message as a list of pieces.
///
/// All small fields go, in order, into one buffer. Records go between them by reference: the writer notes where they
/// belong and puts them there when the message is finished, without copying them.
#[derive(Debug)]
pub struct Writer {
    buffer: Vec<u8>,
    /// Payloads and the position in `buffer` before which each belongs, in order.
    payloads: Vec<(usize, Bytes)>,
    payload_bytes: usize,
}

/// Where a tagged field began: see [`Writer::begin_tagged_field`].
#[derive(Debug)]
pub struct TaggedField {
    content: usize,
    payloads: usize,
    payload_bytes: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Writer::new()
    }
}

impl Writer {
    /// A writer of an empty message.
    pub fn new() -> Writer {
        Writer {
            buffer: Vec::with_capacity(BUFFER_BYTES),
            payloads: Vec::new(),
            payload_bytes: 0,
        }
    }

    /// How many bytes have been written, payloads included.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.payload_bytes
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces of the message, in order.
    pub fn finish(self) -> Vec<Bytes> {
        let small = Bytes::from(self.buffer);
        if self.payloads.is_empty() && !small.is_empty() {
            return vec![small];
        }
        let mut pieces = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut done = 0;
        for (position, payload) in self.payloads {
            if position > done {
                pieces.push(small.slice(done..position));
                done = position;
            }
            pieces.push(payload);
        }
        if done < small.len() {
            pieces.push(small.slice(done..));
        }
        pieces
    }

    /// The pieces of the message as a frame: begun by [`Writer::frame`], its size is filled in now.
    pub fn finish_frame(mut self) -> Result<Vec<Bytes>, EncodeError> {
        let length = self.len().saturating_sub(4);
        let size = i32::try_from(length).map_err(|_| too_long(length, i32::MAX as usize))?;
        if let Some(place) = self.buffer.first_chunk_mut::<4>() {
            *place = size.to_be_bytes();
        }
        Ok(self.finish())
    }

    /// A writer whose first four bytes are kept for the frame's size.
    pub fn frame() -> Writer {
        let mut writer = Writer::new();
        writer.i32(0);
        writer
    }

    /// The whole message in one piece, payloads copied.
    pub fn into_bytes(self) -> Bytes {
        if self.payloads.is_empty() {
            return Bytes::from(self.buffer);
        }
        let pieces = self.finish();
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => only,
            Err(pieces) => Bytes::from(pieces.concat()),
        }
    }

    /// One byte, 1 or 0.
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self, value: i16) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self, value: i32) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self, value: i64) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, IEEE 754 big-endian.
    pub fn f64(&mut self, value: f64) {
        self.buffer.extend_from_slice(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.buffer.extend_from_slice(&value.0);
    }

    /// Two bytes.
    pub fn error_code(&mut self, value: ErrorCode) {
        self.i16(value.0);
    }

    /// An unsigned variable-length integer.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    fn compact_length(&mut self, length: usize) -> Result<(), EncodeError> {
        let limit = i32::MAX as usize - 1;
        if length > limit {
            return Err(too_long(length, limit));
        }
        self.uvarint(length as u32 + 1);
        Ok(())
    }

    /// The length of bytes, records or an array.
    fn long_length(&mut self, flexible: bool, length: usize) -> Result<(), EncodeError> {
        if flexible {
            return self.compact_length(length);
        }
        let value = i32::try_from(length).map_err(|_| too_long(length, i32::MAX as usize))?;
        self.i32(value);
        Ok(())
    }

    fn long_null(&mut self, flexible: bool) {
        if flexible {
            self.uvarint(0);
        } else {
            self.i32(-1);
        }
    }

    /// A string.
    pub fn string(&mut self, flexible: bool, value: &Str) -> Result<(), EncodeError> {
        if flexible {
            self.compact_length(value.len())?;
        } else {
            let length =
                i16::try_from(value.len()).map_err(|_| too_long(value.len(), i16::MAX as usize))?;
            self.i16(length);
        }
        self.buffer.extend_from_slice(value.as_bytes());
        Ok(())
    }

    /// A string or null.
    pub fn nullable_string(
        &mut self,
        flexible: bool,
        value: Option<&Str>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.string(flexible, value),
            None if flexible => {
                self.uvarint(0);
                Ok(())
            }
            None => {
                self.i16(-1);
                Ok(())
            }
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, flexible: bool, value: &Bytes) -> Result<(), EncodeError> {
        self.long_length(flexible, value.len())?;
        self.payload(value);
        Ok(())
    }

    /// Bytes or null.
    pub fn nullable_bytes(
        &mut self,
        flexible: bool,
        value: Option<&Bytes>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.bytes(flexible, value),
            None => {
                self.long_null(flexible);
                Ok(())
            }
        }
    }

    /// Record batches, by reference.
    pub fn records(&mut self, flexible: bool, value: &Records) -> Result<(), EncodeError> {
        self.long_length(flexible, value.len())?;
        for piece in value.pieces() {
            self.payload(piece);
        }
        Ok(())
    }

    /// Record batches, by reference, or null.
    pub fn nullable_records(
        &mut self,
        flexible: bool,
        value: Option<&Records>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.records(flexible, value),
            None => {
                self.long_null(flexible);
                Ok(())
            }
        }
    }

    fn payload(&mut self, payload: &Bytes) {
        if payload.len() <= COPY_MAX {
            self.buffer.extend_from_slice(payload);
        } else {
            self.payloads.push((self.buffer.len(), payload.clone()));
            self.payload_bytes += payload.len();
        }
    }

    /// An array.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        value: &[T],
        mut element: impl FnMut(&mut Writer, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.long_length(flexible, value.len())?;
        for item in value {
            element(self, item)?;
        }
        Ok(())
    }

    /// An array or null.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        value: Option<&[T]>,
        element: impl FnMut(&mut Writer, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.array(flexible, value, element),
            None => {
                self.long_null(flexible);
                Ok(())
            }
        }
    }

    /// A struct or null, with the byte before it that tells which.
    pub fn nullable_struct<T>(
        &mut self,
        value: Option<&T>,
        structure: impl FnOnce(&mut Writer, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                self.i8(1);
                structure(self, value)
            }
            None => {
                self.i8(-1);
                Ok(())
            }
        }
    }

    /// Begins a tagged field; its content follows, then [`Writer::end_tagged_field`].
    pub fn begin_tagged_field(&mut self, tag: u32) -> TaggedField {
        self.uvarint(tag);
        self.buffer.push(0);
        TaggedField {
            content: self.buffer.len(),
            payloads: self.payloads.len(),
            payload_bytes: self.payload_bytes,
        }
    }

    /// Ends a tagged field: its size, of which one byte was kept free, is put before its content.
    pub fn end_tagged_field(&mut self, field: TaggedField) -> Result<(), EncodeError> {
        let payload_bytes = self.payload_bytes - field.payload_bytes;
        let size = self.buffer.len() - field.content + payload_bytes;
        let limit = i32::MAX as usize;
        if size > limit {
            return Err(too_long(size, limit));
        }
        let mut length = Vec::with_capacity(5);
        let mut rest = size;
        while rest >= 0x80 {
            length.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        length.push(rest as u8);
        let more = length.len() - 1;
        self.buffer.splice(field.content - 1..field.content, length);
        for (position, _) in &mut self.payloads[field.payloads..] {
            *position += more;
        }
        Ok(())
    }
}

fn too_long(length: usize, limit: usize) -> EncodeError {
    EncodeError::TooLong { length, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tagged_field_is_preceded_by_its_size_whatever_that_takes() {
        for (length, size) in [
            (0, &[1][..]),
            (126, &[127]),
            (127, &[0x81, 1]),
            (20_000, &[0xa3, 0x9c, 1]),
        ] {
            let mut writer = Writer::new();
            let field = writer.begin_tagged_field(3);
            let content = Bytes::from(vec![5; length]);
            writer.bytes(true, &content).expect("short enough");
            writer.end_tagged_field(field).expect("short enough");
            writer.i8(9);
            let bytes = writer.into_bytes();
            assert_eq!(bytes[0], 3);
            assert!(bytes[1..].starts_with(size), "{length}: {:?}", &bytes[..8]);
            assert!(bytes[1 + size.len()..].ends_with(&[9]));
            let mut expected = Writer::new();
            expected.uvarint(length as u32 + 1);
            assert!(bytes[1 + size.len()..].starts_with(&expected.into_bytes()));
        }
    }

    #[test]
    fn payloads_stand_where_they_were_written() {
        let payload = Bytes::from(vec![1; COPY_MAX + 1]);
        let small = Bytes::from(vec![2; COPY_MAX]);
        let mut writer = Writer::frame();
        writer.bytes(false, &payload).expect("short enough");
        writer.bytes(false, &payload).expect("short enough");
        writer.bytes(false, &small).expect("short enough");
        let length = writer.len();
        let pieces = writer.finish_frame().expect("short enough");
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[1].as_ptr(), payload.as_ptr());
        assert_eq!(pieces[3].as_ptr(), payload.as_ptr());
        let whole = pieces.concat();
        assert_eq!(whole.len(), length);
        assert_eq!(whole[..4], (length as i32 - 4).to_be_bytes());
        assert_eq!(whole[4 + 4..][..payload.len()], payload[..]);
    }
}
