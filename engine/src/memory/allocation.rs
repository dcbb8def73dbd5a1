//! Raw block-aligned memory from the global allocator: obtained without zeroing, given back on drop.
//!
//! Hands out pointers, never references: which bytes are initialised and who may touch them is for the owners to know
//! (rules 2 and 3 of the module above).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::{BLOCK_BYTES, round_up};

/// Block-aligned memory of a whole number of blocks; its contents start out undefined.
pub(super) struct Allocation {
    pointer: NonNull<u8>,
    capacity: usize,
    touched: usize,
}

// SAFETY: an allocation is plain memory without thread affinity, and rule 1 gives it one owner.
unsafe impl Send for Allocation {}
// SAFETY: `&Allocation` only hands out the address and the counters; access through it follows rules 2 and 3.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// Allocates at least `capacity` bytes, rounded up to whole blocks, at least one block.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = round_up(capacity.max(1));
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is at least one block, so not zero.
        let pointer = unsafe { alloc(layout) };
        let Some(pointer) = NonNull::new(pointer) else {
            handle_alloc_error(layout)
        };
        Self {
            pointer,
            capacity,
            touched: 0,
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES)
            .expect("buffer capacities are far below isize::MAX")
    }

    /// Start of the memory; valid for `capacity` bytes while the allocation lives.
    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Size in bytes, a multiple of the block size.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes from the start have ever been written, and so occupy physical memory.
    pub(super) fn touched(&self) -> usize {
        self.touched
    }

    /// Notes that the first `bytes` have been written.
    pub(super) fn touch(&mut self, bytes: usize) {
        self.touched = self.touched.max(bytes);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: `pointer` came from `alloc` with this layout, and rule 1 makes this the only release.
        unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.capacity)) }
    }
}
