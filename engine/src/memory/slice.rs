//! A range of whole blocks of a buffer or chunk: the only thing that is ever given to a disk to write.
//!
//! Its address and its length are multiples of the block size, its bytes are initialised and do not change, and it keeps its memory
//! alive: all that a device needs, by construction.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use compio::buf::IoBuf;

use super::{AlignedBuffer, BLOCK_BYTES, Chunk};

/// Whole blocks of immutable aligned memory; cheap to clone, `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct AlignedSlice {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone, Debug)]
enum Owner {
    Buffer(Arc<AlignedBuffer>),
    Chunk(Chunk),
}

impl AlignedSlice {
    pub(super) fn from_buffer(buffer: Arc<AlignedBuffer>, range: Range<usize>) -> Self {
        Self::new(Owner::Buffer(buffer), range)
    }

    pub(super) fn from_chunk(chunk: Chunk, range: Range<usize>) -> Self {
        Self::new(Owner::Chunk(chunk), range)
    }

    fn new(owner: Owner, range: Range<usize>) -> Self {
        let available = match &owner {
            Owner::Buffer(buffer) => buffer.len(),
            Owner::Chunk(chunk) => chunk.len(),
        };
        assert!(
            range.start.is_multiple_of(BLOCK_BYTES) && range.end.is_multiple_of(BLOCK_BYTES),
            "{range:?} is not a range of whole blocks"
        );
        assert!(
            range.start <= range.end && range.end <= available,
            "{range:?} lies outside {available} bytes"
        );
        Self {
            owner,
            start: range.start,
            end: range.end,
        }
    }

    /// Length in bytes, a multiple of the block size.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.owner {
            Owner::Buffer(buffer) => &buffer.as_slice()[self.start..self.end],
            Owner::Chunk(chunk) => &chunk.as_slice()[self.start..self.end],
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// When the range, counted from this slice's start, is not of whole blocks or does not lie inside.
    pub fn sub_slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.end <= self.len(),
            "{range:?} lies outside {} bytes",
            self.len()
        );
        Self::new(
            self.owner.clone(),
            self.start + range.start..self.start + range.end,
        )
    }

    /// The same bytes as reference-counted bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedSlice {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::Deref for AlignedSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl IoBuf for AlignedSlice {
    fn as_init(&self) -> &[u8] {
        self.as_slice()
    }
}
