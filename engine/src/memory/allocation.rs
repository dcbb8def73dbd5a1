//! Raw block-aligned memory: obtained without touching it, given back on drop.
//!
//! Large pieces are mapped from the kernel and unmapped, so that freed memory really leaves the process and what is not touched costs nothing,
//! whatever the allocator's habits; small ones come from the global allocator. Those of whole huge pages are aligned to them and asked to be made of them: a
//! device is then told of one piece of memory instead of hundreds. (A virtio disk takes 254 pieces a request and not many more at a time, so that writes of a megabyte
//! in small pages wait for each other.) Hands out pointers, never references: which
//! bytes are initialised and who may touch them is for the owners to know (rules 2 and 3 of the module above).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use super::{BLOCK_BYTES, HUGE_PAGE_BYTES, round_up};

/// From this capacity on memory is mapped rather than allocated.
const MAPPED_BYTES_MIN: usize = 128 << 10;

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
        let pointer = if capacity < MAPPED_BYTES_MIN {
            Self::allocate(capacity)
        } else if capacity.is_multiple_of(HUGE_PAGE_BYTES) {
            Self::map_huge(capacity)
        } else {
            Self::map(capacity)
        };
        let Some(pointer) = pointer else {
            handle_alloc_error(Self::layout(capacity))
        };
        Self {
            pointer,
            capacity,
            touched: 0,
        }
    }

    fn allocate(capacity: usize) -> Option<NonNull<u8>> {
        // SAFETY: the layout's size is at least one block, so not zero.
        NonNull::new(unsafe { alloc(Self::layout(capacity)) })
    }

    fn map(capacity: usize) -> Option<NonNull<u8>> {
        let (protection, flags) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        );
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory that is in use. It is
        // aligned to pages, which are at least as large as blocks.
        let mapped =
            unsafe { mmap_anonymous(None, NonZeroUsize::new(capacity)?, protection, flags) };
        mapped.ok().map(NonNull::cast)
    }

    /// As `map`, on a huge page's boundary. That the kernel has huge pages for it is not certain, and not needed.
    fn map_huge(capacity: usize) -> Option<NonNull<u8>> {
        let mapped = Self::map(capacity + HUGE_PAGE_BYTES)?;
        let before = mapped.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let after = HUGE_PAGE_BYTES - before;
        // SAFETY: `before`, `capacity` and `after` together are what was just mapped and nobody has seen yet, and pages are cut at their boundaries. If giving back
        // what is too much fails, address space that is never touched stays taken; if the advice is refused, pages are small.
        unsafe {
            let start = mapped.add(before);
            if before > 0 {
                let _ = munmap(mapped.cast(), before);
            }
            if after > 0 {
                let _ = munmap(start.add(capacity).cast(), after);
            }
            let _ = madvise(start.cast(), capacity, MmapAdvise::MADV_HUGEPAGE);
            Some(start)
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
        if self.capacity < MAPPED_BYTES_MIN {
            // SAFETY: `pointer` came from `alloc` with this layout, and rule 1 makes this the only release.
            unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.capacity)) }
        } else {
            // SAFETY: `pointer` came from `mmap` with this length, and rule 1 makes this the only release. Unmapping a
            // whole mapping of ours cannot fail; if it did, the memory would only stay taken.
            let _ = unsafe { munmap(self.pointer.cast(), self.capacity) };
        }
    }
}
