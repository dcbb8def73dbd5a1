//! Aligned memory that disks read and write directly: buffers, shared chunks, slices of both, and the pool they come from.
//!
//! This is one of the two places in the engine where `unsafe` is allowed (the other one is `disk::direct`); everything
//! unsafe here rests on the four rules below, and each block names the one it leans on. Nothing here does I/O, and nothing
//! here knows what the bytes mean.
//!
//! 1. **One owner per allocation.** An [`allocation::Allocation`] is owned by exactly one lease, and a lease by exactly one
//!    [`AlignedBuffer`] or by the shared part of exactly one [`Chunk`]. It goes back to the pool only when that owner is dropped, so no
//!    slice can outlive the memory it points into: every slice holds the owner through an `Arc`.
//! 2. **Only initialised bytes are shown.** Memory is not zeroed on allocation, so that it costs nothing until it is
//!    touched. Each owner counts the prefix it has written (`len`, `published`), and only bytes of that prefix are ever turned into a `&[u8]`.
//!    What an earlier lease left behind the prefix is therefore never visible, neither to readers nor, because padding is written
//!    as zeros, on disk.
//! 3. **A chunk has one writer.** [`ChunkWriter`] is neither `Clone` nor built from a `Chunk`, and appending takes `&mut self`. It writes only at and
//!    after `published`, then publishes with a release store; readers load it with acquire. Written and shown bytes never overlap, so
//!    there is no data race, whatever threads the readers are on.
//! 4. **The shown prefix never changes.** There is no way to shrink or rewrite it while the chunk lives. A device may thus read a slice while
//!    its shard goes on appending behind it.

mod allocation;
mod buffer;
mod chunk;
mod pool;
mod slice;

pub use buffer::AlignedBuffer;
pub use chunk::{Chunk, ChunkWriter};
pub use pool::{MemoryPool, MemoryUsage};
pub use slice::AlignedSlice;

/// What every position, length and address of direct I/O is a multiple of, in bytes.
///
/// 4096 suits every device whose logical block is 512 or 4096 bytes.
pub const BLOCK_BYTES: usize = 4096;

/// What the kernel's huge pages hold, in bytes, on the processors that this runs on. Where it is not so, nothing depends on it.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Rounds `bytes` up to whole blocks.
pub const fn round_up(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// Rounds `bytes` down to whole blocks.
pub const fn round_down(bytes: usize) -> usize {
    bytes - bytes % BLOCK_BYTES
}

/// Whether a file position or length is a whole number of blocks.
pub const fn is_aligned(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK_BYTES as u64)
}

#[cfg(test)]
mod tests;
