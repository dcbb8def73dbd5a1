//! Transaction markers at the shard that owns the partitions: what ends a producer's transaction there.

use std::rc::Rc;

use futures_util::future::join_all;
use ringlog_engine::batch::EndTransactionMarker;
use ringlog_engine::environment::Environment as _;
use ringlog_net::{ErrorCode, Uuid};

use super::Shard;
use super::append::{code_of_log_error, outcome_of};

/// A marker for one partition.
#[derive(Clone, Copy, Debug)]
pub struct MarkerItem {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The epoch in which this broker leads it.
    pub leader_epoch: i32,
    /// Whose transaction ends.
    pub producer_id: i64,
    /// The epoch in which it ends; with transaction version 2 the producer's next one.
    pub producer_epoch: i16,
    /// The leader epoch of the coordinator's partition.
    pub coordinator_epoch: i32,
    /// Whether the transaction is committed; else it is aborted.
    pub committed: bool,
    /// 0 or 1: the producer keeps its epoch; 2: it is raised with each transaction (KIP-890).
    pub transaction_version: i8,
}

impl Shard {
    /// Writes markers to partitions of this shard. Resolves when each is durable or refused, and answers in order: NONE; INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED, which are
    /// final; or what may pass: UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR. A marker that was written before does no harm.
    pub async fn write_markers(self: &Rc<Self>, items: Vec<MarkerItem>) -> Vec<ErrorCode> {
        let writes = items.into_iter().map(|item| self.write_marker(item));
        join_all(writes).await
    }

    async fn write_marker(&self, item: MarkerItem) -> ErrorCode {
        let Some(log) = self.log(item.topic_id, item.partition) else {
            return match self.topic_settings(item.topic_id) {
                Some(_) => self.missing_log(),
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
        };
        let marker = EndTransactionMarker {
            producer_id: item.producer_id,
            producer_epoch: item.producer_epoch,
            coordinator_epoch: item.coordinator_epoch,
            committed: item.committed,
            timestamp: self.environment.wall_clock_ms(),
        };
        let append = log.append_marker(&marker, item.leader_epoch, item.transaction_version);
        let appended = match append.await {
            Ok(appended) => appended,
            Err(error) => {
                tracing::debug!(log = %log.topic_partition(), %error, "a transaction marker was refused");
                return outcome_of(&error).error;
            }
        };
        match log.flushed(appended.last_offset + 1).await {
            Ok(()) => ErrorCode::NONE,
            Err(error) => code_of_log_error(&error),
        }
    }
}
