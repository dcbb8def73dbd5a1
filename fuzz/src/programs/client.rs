//! The benchmark's client: the other reader of record batches.

#[path = "../../../bench/src/client/batch.rs"]
pub mod batch;
#[path = "../../../bench/src/client/compression.rs"]
pub mod compression;
