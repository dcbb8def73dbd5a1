//! The broker's metadata log: its batches, its snapshots, and the way from them to an image.

#[path = "../../../broker/src/metadata/batch.rs"]
pub mod batch;
#[path = "../../../broker/src/metadata/log.rs"]
pub mod log;
#[path = "../../../broker/src/metadata/replay.rs"]
pub mod replay;
#[path = "../../../broker/src/metadata/snapshot.rs"]
pub mod snapshot;
