//! Made-up messages, for property tests and fuzzing: any bytes are turned into a value that a version can carry.

mod form;
mod numbers;

use bytes::Bytes;

use crate::{ErrorCode, Records, Str, Uuid};

pub use self::form::{Body, Form};
pub use self::numbers::Numbers;

/// The most elements an array is given.
const ELEMENTS_MAX: u8 = 3;

/// Bytes that values are made of; when they are used up, everything is zero, empty, or null.
#[derive(Debug)]
pub struct Source<'a> {
    bytes: &'a [u8],
}

/// A struct that can be made up. Implemented by generated code only.
pub trait ArbitraryMessage {
    /// Makes up a value; fields that the version does not have are at their defaults.
    fn arbitrary(source: &mut Source<'_>, version: i16) -> Self;
}

impl<'a> Source<'a> {
    /// Values made of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { bytes }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.bytes.len());
        let (now, later) = self.bytes.split_at(length);
        taken[..length].copy_from_slice(now);
        self.bytes = later;
        taken
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    /// Whether something that may be null is.
    pub fn is_null(&mut self) -> bool {
        self.byte().is_multiple_of(4)
    }

    /// Either.
    pub fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Any.
    pub fn i8(&mut self) -> i8 {
        i8::from_be_bytes(self.take())
    }

    /// Any.
    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take())
    }

    /// Any.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    /// Any.
    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }

    /// Any.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    /// Any.
    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.take())
    }

    /// Any that is equal to itself.
    pub fn f64(&mut self) -> f64 {
        f64::from(self.i32()) / 16.0
    }

    /// Any.
    pub fn uuid(&mut self) -> Uuid {
        Uuid(self.take())
    }

    /// Any, known or not.
    pub fn error_code(&mut self) -> ErrorCode {
        ErrorCode(self.i16())
    }

    /// Mostly short, sometimes longer than one length byte of a flexible version can say.
    pub fn string(&mut self) -> Str {
        let length = match self.byte() {
            byte @ 0..=239 => byte % 9,
            byte => byte,
        };
        let text: String = (0..length)
            .map(|_| match self.byte() {
                byte @ 0..=127 => char::from(b' ' + byte % 95),
                byte => char::from_u32(0x100 + u32::from(byte)).unwrap_or('ä'),
            })
            .collect();
        Str::from(text)
    }

    /// Mostly short, sometimes longer than one length byte of a flexible version can say.
    pub fn bytes(&mut self) -> Bytes {
        let length = match self.byte() {
            byte @ 0..=239 => usize::from(byte % 9),
            byte => usize::from(byte) * 5,
        };
        let seed = self.byte();
        Bytes::from(vec![seed; length])
    }

    /// As bytes, in one or several pieces.
    pub fn records(&mut self) -> Records {
        let bytes = self.bytes();
        if self.bool() {
            return Records::from(bytes);
        }
        let cut = bytes.len() / 2;
        Records::from(vec![bytes.slice(..cut), bytes.slice(cut..)])
    }

    /// A few elements.
    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Source<'a>) -> T) -> Vec<T> {
        let elements = self.byte() % (ELEMENTS_MAX + 1);
        (0..elements).map(|_| element(self)).collect()
    }
}
