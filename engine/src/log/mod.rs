//! One partition's log: its order of batches, what of it is flushed, and how it is read.
//!
//! A [`Log`] is owned by its shard's thread and shared there by `Rc`. Appending is synchronous while space is reserved, memory is free and the journal has
//! room; otherwise the append takes its turn and waits. One task at a time works on the log's files (`io`). Offsets are given out only for space that is there;
//! consumers see nothing beyond the high watermark; after an error on its files the log is offline until the next start.

mod append;
mod background;
mod checkpoint;
pub(crate) mod clean;
mod clean_files;
mod create;
mod end;
pub(crate) mod flush;
mod indexes;
mod lookup;
mod producers;
mod read;
pub(crate) mod replay;
mod retain;
mod stable;
mod swap;
pub(crate) mod tail;
mod truncate;
mod types;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use crate::config::LogConfig;
use crate::engine::ballast::may_pass;
use crate::engine::shard::Shard;
use crate::environment::Environment;
use crate::epochs::LeaderEpochs;
use crate::journal::FileMark;
use crate::producer_state::{ProducerStates, ProducerView, Verifications};
use crate::segment::Segment;
use crate::wait::Turnstile;
pub(crate) use background::{WriteBehind, WroteBehind};
pub(crate) use checkpoint::{Checkpointed, ignore_missing};
use flush::{FlushState, Place};
use tail::Tail;
pub use types::{
    AppendError, Appended, LogError, ReadError, ReadLimit, ReadResult, TimestampOffset, TopicId,
    TopicPartition,
};

/// See the module.
pub struct Log<E: Environment> {
    pub(crate) shard: Rc<Shard<E>>,
    topic_partition: TopicPartition,
    topic_id: TopicId,
    /// Which of the shard's log directories it lies in.
    directory: usize,
    pub(crate) flush: Rc<FlushState>,
    pub(crate) state: RefCell<LogState<E>>,
    /// Appends that have to wait, and whoever must not be overtaken by one.
    appending: Turnstile,
    /// Work on the files, one at a time.
    io: Turnstile,
    /// Whether it waits in the shard's line for write-behind.
    pub(crate) queued: Cell<bool>,
    /// Whether it waits in the shard's line of aging dirty logs.
    pub(crate) aging: Cell<bool>,
    /// Its records may take space that is kept back for a full disk.
    essential: Cell<bool>,
    /// Whether it is about to leave the shard.
    presence: Cell<Presence>,
    /// How often segments were put in the place of others: who reads by places in segments starts again.
    replacements: Cell<u64>,
    /// Either a truncation, which finds places in segments and cuts there later, or segments that take the place of others. Those do not come while the other is in.
    replacing: Turnstile,
    /// Writing indexes that were made anew, or changing the segments that they are of.
    indexing: Turnstile,
    /// Where the journal may truncate the log to at the next start, and the last of its entries that may say so.
    truncated: Cell<Option<(i64, u64)>>,
    /// Itself, for the shard's lines.
    me: Weak<Log<E>>,
}

/// Whether a log is there to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Yes.
    Here,
    /// It takes no appends: the journal is about to be told that it leaves.
    Refusing,
    /// The journal has been told, or is being told.
    Leaving,
    /// It has left.
    Gone,
}

/// What changes.
pub(crate) struct LogState<E: Environment> {
    pub config: LogConfig,
    pub leader_epoch: i32,
    pub log_start: i64,
    pub next_offset: i64,
    /// In offset order; the last one is active. Empty until the first append.
    pub segments: BTreeMap<i64, Segment<E>>,
    pub tail: Tail,
    pub producers: ProducerStates,
    /// Transactions that the coordinator is being asked about.
    pub verifications: Verifications,
    pub epochs: LeaderEpochs,
    /// Journal files this log needs for its recovery, each with the offset before which it no longer does.
    pub marks: VecDeque<(Rc<FileMark>, i64)>,
    /// Every byte before this offset is synced, and its files say so, durably.
    pub recovery_point: i64,
    /// When the oldest byte that is not written behind was appended, monotonic microseconds.
    pub dirty_since: Option<u64>,
    /// The directory and its metadata exist, durably.
    pub materialized: bool,
    /// Whether a reservation ahead of need is being made.
    pub reserving: bool,
    /// Entries of the epoch checkpoint when it was last durable.
    pub durable_epochs: Vec<crate::epochs::EpochEntry>,
    /// Offsets of the producer snapshots on disk, ascending.
    pub snapshots: Vec<i64>,
}

impl<E: Environment> LogState<E> {
    /// Where the log ends.
    pub fn end(&self) -> Place {
        self.segments.last_key_value().map_or(
            Place {
                segment: self.next_offset,
                position: 0,
            },
            |(base, segment)| Place {
                segment: *base,
                position: segment.size,
            },
        )
    }

    /// Bytes of batches that are not in their files yet.
    pub fn dirty_bytes(&self) -> u64 {
        self.segments
            .values()
            .rev()
            .take_while(|segment| segment.written < segment.size || segment.size == 0)
            .map(|segment| segment.size - segment.written)
            .sum()
    }

    /// Up to where everything is in its file.
    pub fn written(&self) -> Place {
        let unwritten = self
            .segments
            .iter()
            .find(|(_, segment)| segment.written < segment.size);
        unwritten.map_or(self.end(), |(base, segment)| Place {
            segment: *base,
            position: segment.written,
        })
    }

    /// The segment that holds `offset`, or would.
    pub fn segment_of(&self, offset: i64) -> Option<&Segment<E>> {
        self.segments
            .range(..=offset)
            .next_back()
            .or_else(|| self.segments.first_key_value())
            .map(|(_, segment)| segment)
    }
}

impl<E: Environment> Log<E> {
    /// Itself, for the shard's lines.
    pub(crate) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// The partition.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// Which of the configured log directories it lies in.
    pub fn directory_index(&self) -> usize {
        self.directory
    }

    /// The log's own directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.shard.config.log_dirs[self.directory].join(self.topic_partition.to_string())
    }

    /// The first offset that can be read.
    pub fn log_start_offset(&self) -> i64 {
        self.state.borrow().log_start
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.state.borrow().next_offset
    }

    /// The offset before which everything is on the medium.
    pub fn flushed_offset(&self) -> i64 {
        self.flush.flushed()
    }

    /// The offset before which consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.flush.high_watermark()
    }

    /// The epoch of the current leader, as last told or appended.
    pub fn leader_epoch(&self) -> i32 {
        self.state.borrow().leader_epoch
    }

    /// Tells the log its leader's epoch; an older one changes nothing.
    pub fn set_leader_epoch(&self, epoch: i32) {
        let mut state = self.state.borrow_mut();
        state.leader_epoch = state.leader_epoch.max(epoch);
    }

    /// Bytes of batches in all segments.
    pub fn size_bytes(&self) -> u64 {
        self.state
            .borrow()
            .segments
            .values()
            .map(|segment| segment.size)
            .sum()
    }

    /// The log's settings.
    pub fn config(&self) -> LogConfig {
        self.state.borrow().config.clone()
    }

    /// Replaces the log's settings; they apply from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        self.state.borrow_mut().config = config;
    }

    /// Lets the log's records take the space that is kept back for a full disk: for a log of changes, some of which make room.
    pub fn set_essential(&self) {
        self.essential.set(true);
    }

    /// The offset after the last one of `epoch`, by the rules of OffsetForLeaderEpoch (KIP-101, KIP-279); `(-1, -1)` for an epoch the log does not know.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let state = self.state.borrow();
        state.epochs.end_offset_for(epoch, state.next_offset)
    }

    /// The epoch that `offset` was written in.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.state.borrow().epochs.epoch_for(offset)
    }

    /// The producers the log remembers.
    pub fn producer_states(&self) -> Vec<ProducerView> {
        self.state.borrow().producers.views(self.now_ms())
    }

    /// Resolves when everything before `next_offset` is on the medium.
    ///
    /// # Errors
    /// When the log went offline, was deleted, or was truncated meanwhile.
    pub async fn flushed(&self, next_offset: i64) -> Result<(), LogError> {
        if self.flush.flushed() >= next_offset && self.flush.closed().is_none() {
            return Ok(());
        }
        self.flush
            .wait_flushed(next_offset, &self.topic_partition)
            .await
    }

    /// Resolves when the high watermark lies beyond `offset`, or the log was truncated; dropping the future ends the wait.
    ///
    /// # Errors
    /// When the log went offline or was deleted.
    pub async fn wait_for(&self, offset: i64) -> Result<(), LogError> {
        self.flush.wait_visible(offset).await
    }

    /// Why the log does not answer, if so.
    pub fn failure(&self) -> Option<LogError> {
        self.flush.closed()
    }

    /// Takes the log offline, saying why.
    pub(crate) fn take_offline(&self, reason: &str) {
        if self.flush.closed().is_none() {
            tracing::error!(log = %self.topic_partition, "offline: {reason}");
        }
        self.flush.close(LogError::Offline {
            log: self.topic_partition.to_string(),
            reason: reason.into(),
        });
        self.shard.log_closed();
    }

    pub(crate) fn check_online(&self) -> Result<(), LogError> {
        match self.flush.closed() {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    fn now_ms(&self) -> i64 {
        (self.shard.env.now() / 1000) as i64
    }

    pub(crate) fn storage_error(
        &self,
        operation: &'static str,
        error: &std::io::Error,
    ) -> LogError {
        LogError::Storage {
            log: self.topic_partition.to_string(),
            operation,
            error: error.to_string(),
            may_pass: may_pass(error).then(|| error.kind()),
        }
    }
}
