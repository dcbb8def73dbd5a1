//! Compaction by key, the part that is pure: which part of a log is dirty, which record is a key's last, what stays of a batch, and how fast all that may go.
//!
//! A compacted log keeps at least the last value of every key. A pass reads the dirty part into an offset map of fixed size ([`offset_map`]), then copies the log up to the
//! end of what the map covers without the records that a later one replaces ([`filter`]). Offsets never change and batches stay as they are unless a record of theirs goes. Reading, writing
//! and putting the new segments in place of the old is the log's business (`log::clean`, `log::swap`), choosing a log the engine's (`engine::cleaner`).

pub(crate) mod filter;
mod hash;
pub(crate) mod memory;
pub(crate) mod offset_map;
pub(crate) mod range;
pub(crate) mod throttle;
pub(crate) mod transactions;

/// Bytes of records that are worked on at a stretch before others may have a turn: less than 100 µs.
pub(crate) const STRETCH_BYTES: usize = 64 << 10;
