//! Committed offsets of one coordinator: what each group has stored for each partition, and what waits for the end of a transaction.
//!
//! Of two commits for a partition the later in the log wins, even when the earlier becomes visible later because it was part of a transaction. The order of
//! the log is the order of the events, which [`CommittedOffset::sequence`] remembers.

use std::collections::BTreeMap;

use ringlog_net::{Str, Uuid};

use super::table::{OffsetKey, Table};

/// In place of a time: none.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// Offsets of one group.
pub(crate) type OffsetTable = Table<Box<CommittedOffset>>;

/// What was committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The next offset to read.
    pub(crate) offset: i64,
    /// The leader epoch of the last record read, or −1.
    pub(crate) leader_epoch: i32,
    /// Most clients say nothing here.
    metadata: Option<Box<str>>,
    /// When, in milliseconds since the epoch.
    pub(crate) commit_timestamp_ms: i64,
    /// When it expires by the client's own wish, or [`NO_TIMESTAMP`].
    pub(crate) expire_timestamp_ms: i64,
    /// Zero when the client did not say it.
    pub(crate) topic_id: Uuid,
    /// The place in the log, relative to others of this coordinator.
    pub(crate) sequence: u64,
}

impl CommittedOffset {
    /// A commit that has no place in the log yet. The metadata is copied.
    pub(crate) fn new(
        offset: i64,
        leader_epoch: i32,
        metadata: &str,
        commit_timestamp_ms: i64,
        expire_timestamp_ms: i64,
        topic_id: Uuid,
    ) -> Self {
        Self {
            offset,
            leader_epoch,
            metadata: (!metadata.is_empty()).then(|| metadata.into()),
            commit_timestamp_ms,
            expire_timestamp_ms,
            topic_id,
            sequence: 0,
        }
    }

    /// What the client wanted to keep with it.
    pub(crate) fn metadata(&self) -> Str {
        self.metadata
            .as_deref()
            .map_or_else(Str::default, Str::from)
    }

    /// Whether it is about a topic, and not about an older or newer one of the same name. A topic id that is not known, here or there, is any.
    pub(crate) fn is_of_topic(&self, topic_id: Uuid) -> bool {
        self.topic_id.is_zero() || topic_id.is_zero() || self.topic_id == topic_id
    }

    /// Whether the time is up, given when retention began.
    pub(crate) fn is_expired(&self, since_ms: i64, now_ms: i64, retention_ms: i64) -> bool {
        if self.expire_timestamp_ms == NO_TIMESTAMP {
            now_ms.saturating_sub(since_ms) >= retention_ms
        } else {
            now_ms >= self.expire_timestamp_ms
        }
    }
}

/// What waits for the end of transactions, by producer and group.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    by_producer: BTreeMap<i64, BTreeMap<Str, OffsetTable>>,
    count: usize,
}

impl PendingOffsets {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Adds one; returns whether this producer had none for the partition.
    pub(crate) fn insert(
        &mut self,
        producer_id: i64,
        group: &Str,
        key: OffsetKey,
        offset: Box<CommittedOffset>,
    ) -> bool {
        let groups = self.by_producer.entry(producer_id).or_default();
        let table = match groups.get_mut(group) {
            Some(table) => table,
            None => groups.entry(group.clone()).or_default(),
        };
        let new = table.insert(key, offset).is_none();
        self.count += usize::from(new);
        new
    }

    /// What a producer has committed for a partition.
    pub(crate) fn get(
        &self,
        producer_id: i64,
        group: &str,
        key: &OffsetKey,
    ) -> Option<&CommittedOffset> {
        let table = self.by_producer.get(&producer_id)?.get(group)?;
        table.get(key).map(|offset| &**offset)
    }

    /// Takes all of a producer.
    pub(crate) fn take(&mut self, producer_id: i64) -> BTreeMap<Str, OffsetTable> {
        let groups = self.by_producer.remove(&producer_id).unwrap_or_default();
        self.count -= groups.values().map(OffsetTable::len).sum::<usize>();
        groups
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, producer_id: i64, group: &Str, key: &OffsetKey) {
        let Some(groups) = self.by_producer.get_mut(&producer_id) else {
            return;
        };
        let Some(table) = groups.get_mut(group) else {
            return;
        };
        self.count -= usize::from(table.remove(key).is_some());
        if table.is_empty() {
            groups.remove(group);
            if groups.is_empty() {
                self.by_producer.remove(&producer_id);
            }
        }
    }
}
