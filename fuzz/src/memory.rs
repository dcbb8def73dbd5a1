//! Counts the memory that Rust code takes, so that targets can say how much a parser may take for its input.
//!
//! What the C code of zstd takes for itself is not seen here; its window is limited where its context is made.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // While a thread ends its counters are gone; nothing is measured then.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises about `layout` are passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises about `layout` are passed on unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from `alloc` above, and so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `call` returned, and the most bytes it held at once beyond what was there.
pub fn measured<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let value = call();
    (value, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// What `call` returned; panics where it held more than `limit` bytes at once.
pub fn within<T>(limit: usize, call: impl FnOnce() -> T) -> T {
    let (value, peak) = measured(call);
    assert!(
        peak <= limit,
        "{peak} bytes of memory were taken, {limit} may be"
    );
    value
}

/// What decoding a message of `arrived` bytes may take: the promise of `codec::Reader`, and 2 KiB for the message's own struct.
pub fn of_message(arrived: usize) -> usize {
    4 * arrived + (64 * arrived).min(4 << 20) + (2 << 10)
}
