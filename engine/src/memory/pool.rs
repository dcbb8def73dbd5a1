//! A shard's pool of aligned memory: recycles allocations of equal size and counts what is in use.
//!
//! The pool may be returned to from any thread, because the last reader of a chunk may be another shard. It locks only when memory is
//! leased or comes back (once per buffer or chunk), never per append. It keeps at most `idle_bytes_max` of unused
//! memory and does not limit what is leased: budgets are the tail cache's business.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::allocation::Allocation;
use super::{AlignedBuffer, ChunkWriter, round_up};

/// Where a shard gets its aligned memory; cheap to clone.
#[derive(Clone)]
pub struct MemoryPool {
    shared: Arc<Shared>,
}

/// What a pool has handed out and holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Capacity of everything leased and not yet returned.
    pub leased_bytes: usize,
    /// The part of leased and idle memory that has been written to at least once, hence is backed by physical memory. The kernel backs whole pages: of memory
    /// of huge pages it may have backed up to a page more.
    pub resident_bytes: usize,
    /// Capacity kept for reuse.
    pub idle_bytes: usize,
}

struct Shared {
    idle: Mutex<Idle>,
    idle_bytes_max: usize,
    leased_bytes: AtomicUsize,
    resident_bytes: AtomicUsize,
}

#[derive(Default)]
struct Idle {
    bytes: usize,
    by_capacity: BTreeMap<usize, Vec<Allocation>>,
}

impl MemoryPool {
    /// A pool that keeps at most `idle_bytes_max` bytes of returned memory for reuse.
    pub fn new(idle_bytes_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                idle: Mutex::default(),
                idle_bytes_max,
                leased_bytes: AtomicUsize::new(0),
                resident_bytes: AtomicUsize::new(0),
            }),
        }
    }

    /// An empty buffer that holds at least `capacity` bytes.
    pub fn buffer(&self, capacity: usize) -> AlignedBuffer {
        AlignedBuffer::from_lease(self.lease(capacity))
    }

    /// An empty chunk that holds at least `capacity` bytes, as its one writer.
    pub fn chunk(&self, capacity: usize) -> ChunkWriter {
        ChunkWriter::from_lease(self.lease(capacity))
    }

    /// What is in use now.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            leased_bytes: self.shared.leased_bytes.load(Ordering::Relaxed),
            resident_bytes: self.shared.resident_bytes.load(Ordering::Relaxed),
            idle_bytes: self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .bytes,
        }
    }

    fn lease(&self, capacity: usize) -> Lease {
        let capacity = round_up(capacity.max(1));
        let recycled = self
            .shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(capacity);
        let allocation = recycled.unwrap_or_else(|| Allocation::new(capacity));
        self.shared
            .leased_bytes
            .fetch_add(capacity, Ordering::Relaxed);
        Lease {
            allocation: Some(allocation),
            pool: Some(self.shared.clone()),
        }
    }
}

impl std::fmt::Debug for MemoryPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPool")
            .field("usage", &self.usage())
            .finish()
    }
}

impl Idle {
    fn take(&mut self, capacity: usize) -> Option<Allocation> {
        let allocation = self.by_capacity.get_mut(&capacity)?.pop()?;
        self.bytes -= capacity;
        Some(allocation)
    }
}

impl Shared {
    /// Keeps `allocation` for reuse, or hands it back to be freed when enough is kept already.
    fn keep(&self, allocation: Allocation) -> Option<Allocation> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + allocation.capacity() > self.idle_bytes_max {
            return Some(allocation);
        }
        idle.bytes += allocation.capacity();
        idle.by_capacity
            .entry(allocation.capacity())
            .or_default()
            .push(allocation);
        None
    }
}

/// The right to use one allocation, until dropped; returns it to the pool it came from.
pub(super) struct Lease {
    /// Always there, except while being dropped.
    allocation: Option<Allocation>,
    pool: Option<Arc<Shared>>,
}

impl Lease {
    /// Memory that belongs to no pool.
    pub(super) fn unpooled(capacity: usize) -> Self {
        Self {
            allocation: Some(Allocation::new(capacity)),
            pool: None,
        }
    }

    fn allocation(&self) -> &Allocation {
        self.allocation
            .as_ref()
            .expect("a lease holds its allocation until it is dropped")
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.allocation().pointer()
    }

    pub(super) fn capacity(&self) -> usize {
        self.allocation().capacity()
    }

    /// Bytes of this allocation that the pool already counts as resident.
    pub(super) fn touched(&self) -> usize {
        self.allocation().touched()
    }

    /// Counts bytes `from..to` as resident; the caller remembers `to`, see [`Lease::settle`].
    pub(super) fn count_resident(&self, from: usize, to: usize) {
        if let Some(pool) = &self.pool {
            pool.resident_bytes.fetch_add(to - from, Ordering::Relaxed);
        }
    }

    /// Notes, before the drop, how far the memory has been written and counted.
    pub(super) fn settle(&mut self, touched: usize) {
        if let Some(allocation) = &mut self.allocation {
            allocation.touch(touched);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(allocation), Some(pool)) = (self.allocation.take(), self.pool.take()) else {
            return;
        };
        pool.leased_bytes
            .fetch_sub(allocation.capacity(), Ordering::Relaxed);
        if let Some(freed) = pool.keep(allocation) {
            pool.resident_bytes
                .fetch_sub(freed.touched(), Ordering::Relaxed);
        }
    }
}
