//! An owned, block-aligned, growable-up-to-its-capacity byte buffer: what reads fill and small writes are staged in.
//!
//! It never reallocates, because a device may hold its address; writing more than fits is the caller's bug and panics.

use std::mem::MaybeUninit;
use std::sync::Arc;

use bytes::Bytes;
use compio::buf::{IoBuf, IoBufMut, SetLen};

use super::pool::Lease;
use super::{AlignedSlice, round_up};

/// Owned block-aligned memory with an initialised prefix of `len` bytes.
pub struct AlignedBuffer {
    lease: Lease,
    len: usize,
    /// Bytes already counted as resident by the pool.
    counted: usize,
}

impl AlignedBuffer {
    /// An empty buffer outside any pool, of at least `capacity` bytes; for cold paths and tests.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::from_lease(Lease::unpooled(capacity))
    }

    /// A buffer outside any pool with `bytes` in it.
    pub fn copied_from(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    pub(super) fn from_lease(lease: Lease) -> Self {
        let counted = lease.touched();
        Self {
            lease,
            len: 0,
            counted,
        }
    }

    /// Initialised bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit in all; a multiple of the block size.
    pub fn capacity(&self) -> usize {
        self.lease.capacity()
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.len
    }

    /// The initialised bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: rule 2, the first `len` bytes are initialised; `&self` keeps the owner from writing.
        unsafe { std::slice::from_raw_parts(self.lease.pointer(), self.len) }
    }

    /// The initialised bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: rule 2 as above, and rule 1 with `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.lease.pointer(), self.len) }
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// When they do not fit; check [`AlignedBuffer::remaining`] first.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.remaining(),
            "an aligned buffer does not grow: {} bytes into {}",
            bytes.len(),
            self.remaining()
        );
        // SAFETY: the range lies inside the allocation (asserted), which is ours alone (rule 1, `&mut self`), so it cannot
        // overlap `bytes`.
        unsafe {
            self.lease
                .pointer()
                .add(self.len)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        self.grown_to(self.len + bytes.len());
    }

    /// Appends `count` zeros.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn extend_zeros(&mut self, count: usize) {
        assert!(
            count <= self.remaining(),
            "an aligned buffer does not grow: {count} zeros into {}",
            self.remaining()
        );
        // SAFETY: as in `extend_from_slice`.
        unsafe { self.lease.pointer().add(self.len).write_bytes(0, count) };
        self.grown_to(self.len + count);
    }

    /// Appends zeros up to the next block boundary, so that the whole can be written to disk without stale memory in its padding.
    pub fn pad_to_block(&mut self) {
        self.extend_zeros(round_up(self.len) - self.len);
    }

    /// Forgets everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets all bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Ends writing: pads to whole blocks with zeros and gives a cheaply cloned slice of it all, for I/O.
    pub fn into_aligned_slice(mut self) -> AlignedSlice {
        self.pad_to_block();
        let len = self.len;
        AlignedSlice::from_buffer(Arc::new(self), 0..len)
    }

    /// Ends writing: the initialised bytes as reference-counted bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    fn grown_to(&mut self, len: usize) {
        self.len = len;
        let resident = round_up(len);
        if resident > self.counted {
            self.lease.count_resident(self.counted, resident);
            self.counted = resident;
        }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        self.lease.settle(self.counted);
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl IoBuf for AlignedBuffer {
    fn as_init(&self) -> &[u8] {
        self.as_slice()
    }
}

impl SetLen for AlignedBuffer {
    unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity());
        self.grown_to(len);
    }
}

impl IoBufMut for AlignedBuffer {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the allocation is valid for `capacity` bytes and ours alone (rule 1, `&mut self`); `MaybeUninit`
        // promises nothing about the contents. Who writes through it can only initialise bytes.
        unsafe { std::slice::from_raw_parts_mut(self.lease.pointer().cast(), self.capacity()) }
    }
}
