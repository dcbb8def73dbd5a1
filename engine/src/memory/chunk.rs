//! The shared, append-only piece of memory that a partition's records live in between arrival and eviction.
//!
//! One [`ChunkWriter`] appends; any number of [`Chunk`] handles, on any thread, read the published prefix, which never changes. The same
//! bytes are journal entry, segment write, replication stream and fetch response, without a copy.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::pool::Lease;
use super::{AlignedBuffer, AlignedSlice, BLOCK_BYTES, round_down, round_up};

/// A reader's handle on a chunk; cheap to clone, `Send` and `Sync`.
#[derive(Clone)]
pub struct Chunk {
    shared: Arc<Shared>,
}

/// The only one who may append to its chunk.
pub struct ChunkWriter {
    chunk: Chunk,
    /// Equal to `published`, without the atomic load.
    len: usize,
}

struct Shared {
    lease: Lease,
    /// Length of the initialised, immutable prefix.
    published: AtomicUsize,
    /// Bytes counted as resident; written by the writer only.
    counted: AtomicUsize,
}

impl ChunkWriter {
    /// An empty chunk outside any pool, of at least `capacity` bytes; for cold paths and tests.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::from_lease(Lease::unpooled(capacity))
    }

    pub(super) fn from_lease(lease: Lease) -> Self {
        let counted = AtomicUsize::new(lease.touched());
        let chunk = Chunk {
            shared: Arc::new(Shared {
                lease,
                published: AtomicUsize::new(0),
                counted,
            }),
        };
        Self { chunk, len: 0 }
    }

    /// A reader's handle.
    pub fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.chunk.capacity() - self.len
    }

    /// Copies as much of `bytes` as fits behind what is there and publishes it at once; returns where it went.
    ///
    /// What does not fit is left to the caller, who continues in the next chunk.
    pub fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let count = bytes.len().min(self.remaining());
        let start = self.len;
        // SAFETY: `start + count` is within the capacity, and everything at and after `published` is the one writer's alone (rule
        // 3, `&mut self`), so nobody reads it meanwhile and it cannot overlap `bytes`.
        unsafe {
            self.shared()
                .lease
                .pointer()
                .add(start)
                .copy_from_nonoverlapping(bytes.as_ptr(), count)
        };
        self.publish(start + count);
        start..start + count
    }

    /// Appends as many of `count` zeros as fit; returns where they went.
    ///
    /// Used to begin a chunk in the middle of a block whose first bytes are not needed.
    pub fn append_zeros(&mut self, count: usize) -> Range<usize> {
        let count = count.min(self.remaining());
        let start = self.len;
        // SAFETY: as in `append`.
        unsafe {
            self.shared()
                .lease
                .pointer()
                .add(start)
                .write_bytes(0, count)
        };
        self.publish(start + count);
        start..start + count
    }

    fn shared(&self) -> &Shared {
        &self.chunk.shared
    }

    fn publish(&mut self, len: usize) {
        let shared = self.shared();
        let counted = shared.counted.load(Ordering::Relaxed);
        let resident = round_up(len);
        if resident > counted {
            shared.lease.count_resident(counted, resident);
            shared.counted.store(resident, Ordering::Relaxed);
        }
        shared.published.store(len, Ordering::Release);
        self.len = len;
    }
}

impl Chunk {
    /// Bytes that fit in all; a multiple of the block size.
    pub fn capacity(&self) -> usize {
        self.shared.lease.capacity()
    }

    /// Bytes appended and published so far.
    pub fn len(&self) -> usize {
        self.shared.published.load(Ordering::Acquire)
    }

    /// Whether nothing has been published yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The published bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: rules 2 and 4, the published prefix is initialised and does not change while `self` holds the memory.
        unsafe { std::slice::from_raw_parts(self.shared.lease.pointer(), self.len()) }
    }

    /// A range of the published bytes as reference-counted bytes, without a copy; it keeps the whole chunk alive.
    ///
    /// # Panics
    /// When the range is not published.
    pub fn bytes(&self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "bytes {range:?} of a chunk with {} published",
            self.len()
        );
        Bytes::from_owner(Published {
            chunk: self.clone(),
            range,
        })
    }

    /// Whole published blocks for direct I/O, without a copy.
    ///
    /// # Panics
    /// When the range does not start and end on block boundaries or is not published.
    pub fn blocks(&self, range: Range<usize>) -> AlignedSlice {
        AlignedSlice::from_chunk(self.clone(), range)
    }

    /// What has to be written so that `range` is on disk: its whole blocks without a copy, and a last partial block copied and padded with zeros.
    ///
    /// The copy is what lets the shard append to that block while the device still reads it. `range` starts on a block boundary; the
    /// pieces together are `range` rounded up to whole blocks.
    ///
    /// # Panics
    /// When the range does not start on a block boundary or is not published.
    pub fn padded_blocks(&self, range: Range<usize>) -> Vec<AlignedSlice> {
        assert!(
            range.start.is_multiple_of(BLOCK_BYTES),
            "padded blocks start on a block boundary, not at {}",
            range.start
        );
        let whole_end = round_down(range.end).max(range.start);
        let mut pieces = Vec::with_capacity(2);
        if whole_end > range.start {
            pieces.push(self.blocks(range.start..whole_end));
        }
        if range.end > whole_end {
            let tail = &self.as_slice()[whole_end..range.end];
            pieces.push(AlignedBuffer::copied_from(tail).into_aligned_slice());
        }
        pieces
    }

    /// Whether both are handles on the same memory.
    pub fn is_same(&self, other: &Chunk) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let counted = self.counted.load(Ordering::Relaxed);
        self.lease.settle(counted);
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl std::fmt::Debug for ChunkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.chunk.fmt(f)
    }
}

/// What owns the bytes handed out by [`Chunk::bytes`].
struct Published {
    chunk: Chunk,
    range: Range<usize>,
}

impl AsRef<[u8]> for Published {
    fn as_ref(&self) -> &[u8] {
        &self.chunk.as_slice()[self.range.clone()]
    }
}
