//! The storage engine: disks, journal, logs, segments, indexes, tail cache, recovery, retention.

#![deny(unsafe_code)]

pub mod batch;
pub mod checkpoint;
mod cleaner;
pub mod config;
pub mod disk;
pub mod engine;
pub mod environment;
pub mod epochs;
pub mod index;
pub mod journal;
pub mod log;
#[allow(unsafe_code)]
pub mod memory;
pub mod producer_state;
mod random;
mod retention;
mod segment;
pub mod sim;
mod wait;
