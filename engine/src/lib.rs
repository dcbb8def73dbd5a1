//! The storage engine: disks, journal, logs, segments, indexes, tail cache, recovery, retention.

#![deny(unsafe_code)]

pub mod batch;
pub mod disk;
pub mod environment;
pub mod epochs;
pub mod index;
#[allow(unsafe_code)]
pub mod memory;
pub mod producer_state;
mod random;
pub mod sim;
