//! The seam under the metadata: a log that takes batches at given places and says when they are committed.
//!
//! For one voter it is an engine log, committed when flushed ([`super::engine_log`]). A replicated quorum takes its place by implementing [`MetadataLog`]: its entries are
//! the same batches, with term and place in their headers, so neither handlers nor data change. (A quorum library that numbers entries one by one numbers
//! batches, from whichever it finds first.)

use bytes::Bytes;

use super::snapshot::SnapshotId;

/// Why the log did not take a batch, or lost what it had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFailure {
    /// No room; the log goes on as before, without the batch.
    #[error("{0}")]
    Full(String),
    /// The batch can never fit; the log goes on as before, without it.
    #[error("{0}")]
    TooLarge(String),
    /// The log is gone for this process. Nothing may be retried: what was proposed may or may not be there.
    #[error("the metadata log failed: {0}")]
    Lost(String),
}

/// A log of metadata batches.
pub trait MetadataLog: 'static {
    /// Offset of the first record that is still there.
    fn start_offset(&self) -> i64;

    /// Offset after the last record.
    fn end_offset(&self) -> i64;

    /// Offset after the last committed record: never lost any more.
    fn committed_offset(&self) -> i64;

    /// Puts one batch, whose header names its place and term, at the end. Resolves when its order is fixed, before it is committed; calls are made one after the other.
    fn append(&self, batch: Bytes) -> impl Future<Output = Result<(), LogFailure>>;

    /// Resolves when everything before `next_offset` is committed.
    fn committed(&self, next_offset: i64) -> impl Future<Output = Result<(), LogFailure>>;

    /// Whole batches from the one that holds `offset` on, as many as are handed out at a time; nothing at the end.
    fn read(&self, offset: i64) -> impl Future<Output = Result<Bytes, LogFailure>>;

    /// Which snapshots there are, oldest first.
    fn snapshots(&self) -> impl Future<Output = Result<Vec<SnapshotId>, LogFailure>>;

    /// The content of a snapshot.
    fn read_snapshot(&self, id: SnapshotId) -> impl Future<Output = Result<Bytes, LogFailure>>;

    /// Keeps a snapshot; once it is durable, lets go of the log and the snapshots before it.
    fn keep_snapshot(
        &self,
        id: SnapshotId,
        content: Vec<u8>,
    ) -> impl Future<Output = Result<(), LogFailure>>;
}
