//! The cluster's metadata as a log, `__cluster_metadata-0`, and its keeper on the controller's shard.
//!
//! [`log`] is the seam to whatever stores it, [`batch`] the form of its entries, [`replay`] the way back to an image from it and the newest
//! [`snapshot`], and [`keeper`] the pipeline of
//! propose, commit, apply. What the records mean and what may be proposed is for [`crate::controller`].

pub mod batch;
pub mod engine_log;
pub mod keeper;
pub mod log;
mod open;
pub mod replay;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod together;

pub use self::open::{Metadata, decide};
