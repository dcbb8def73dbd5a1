//! The storage engine: disks, journal, logs, segments, indexes, tail cache, recovery, retention.

pub mod batch;
pub mod epochs;
pub mod index;
pub mod producer_state;
