//! Produce at the shard that owns the partitions: start appends in order, then wait until they are on the medium.
//!
//! The two halves are separate because a connection may start its next request as soon as the order of this one is fixed. Per log the order
//! of appends is the order in which they begin; whoever calls [`Shard::start_append`] waits for it before the next of the same connection. How they share the
//! thread with everything else is for [`super::lane`].

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::batch::BatchError;
use ringlog_engine::environment::Environment as _;
use ringlog_engine::log::{AppendError, LogError};
use ringlog_engine::producer_state::VerificationGuard;
use ringlog_net::{ErrorCode, Uuid};

use super::{Log, Shard};

/// One partition's batch.
#[derive(Debug)]
pub struct AppendItem {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The epoch in which this broker leads it.
    pub leader_epoch: i32,
    /// Exactly what the client sent for the partition.
    pub batch: Bytes,
    /// What the batch's transaction was verified with; none where it has begun here already, or there is none.
    pub guard: Option<VerificationGuard>,
}

/// Batches for partitions of one shard.
#[derive(Debug)]
pub struct AppendOrder {
    /// The batches, at most one per partition.
    pub items: Vec<AppendItem>,
    /// What the request allows.
    pub allowed: Allowed,
}

/// What the batches of a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Compressed with zstd (Produce v7).
    pub zstd: bool,
    /// Part of a transaction: the request names its transactional id.
    pub transactional: bool,
}

/// What became of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// NONE, or why it was refused.
    pub error: ErrorCode,
    /// The reason in words.
    pub message: Option<String>,
    /// Records at fault: their position in the batch and why.
    pub record_errors: Vec<(i32, &'static str)>,
    /// The first record's offset; -1 when refused.
    pub base_offset: i64,
    /// The time given by the broker; -1 with the producer's own time.
    pub log_append_time: i64,
    /// The log's start; -1 when refused.
    pub log_start_offset: i64,
}

impl AppendOutcome {
    /// A refusal.
    pub fn refused(error: ErrorCode, message: impl Into<Option<String>>) -> Self {
        Self {
            error,
            message: message.into(),
            record_errors: Vec::new(),
            base_offset: -1,
            log_append_time: -1,
            log_start_offset: -1,
        }
    }
}

/// A batch whose place is fixed, or that was refused.
pub struct Started {
    outcome: AppendOutcome,
    /// The log, and the offset up to which it must be flushed.
    flush: Option<(Rc<Log>, i64)>,
}

impl Started {
    /// Resolves once the batch is on the medium.
    pub async fn settle(self) -> AppendOutcome {
        let Some((log, next_offset)) = self.flush else {
            return self.outcome;
        };
        match log.flushed(next_offset).await {
            Ok(()) => self.outcome,
            Err(error) => AppendOutcome::refused(code_of_log_error(&error), error.to_string()),
        }
    }
}

impl Shard {
    /// Appends each batch; resolves when each has its offsets or was refused, which is before they are durable.
    pub async fn start_append(self: &Rc<Self>, mut order: AppendOrder) -> Vec<Started> {
        if order.items.len() == 1
            && let Some(item) = order.items.pop()
        {
            let start = self.start_one(item, order.allowed);
            return vec![self.measured(start).await];
        }
        self.fix_order(order).await.results().await
    }

    pub(super) async fn start_one(&self, item: AppendItem, allowed: Allowed) -> Started {
        let refused = |error, message: &str| Started {
            outcome: AppendOutcome::refused(error, message.to_string()),
            flush: None,
        };
        let Some(settings) = self.topic_settings(item.topic_id) else {
            return refused(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                "the topic was deleted",
            );
        };
        let Some(log) = self.log(item.topic_id, item.partition) else {
            return refused(
                self.missing_log(),
                "the partition has no log here: its topic is being deleted, or the broker's log says why",
            );
        };
        let mut rules = settings.rules;
        rules.now_ms = self.environment.wall_clock_ms();
        rules.zstd_allowed = allowed.zstd;
        rules.transactional_allowed = allowed.transactional;
        let bytes = item.batch.len();
        let append = log.append_verified(item.batch, &rules, item.leader_epoch, item.guard);
        match append.await {
            Ok(appended) => {
                self.metrics.appended(bytes, appended.duplicate);
                let outcome = AppendOutcome {
                    error: ErrorCode::NONE,
                    message: None,
                    record_errors: Vec::new(),
                    base_offset: appended.base_offset,
                    log_append_time: appended.log_append_time.unwrap_or(-1),
                    log_start_offset: appended.log_start_offset,
                };
                Started {
                    outcome,
                    flush: Some((log, appended.last_offset + 1)),
                }
            }
            Err(error) => {
                self.metrics.produce_refused.add(1);
                Started {
                    outcome: outcome_of(&error),
                    flush: None,
                }
            }
        }
    }
}

/// Waits for all of them.
pub async fn settle_all(started: Vec<Started>) -> Vec<AppendOutcome> {
    let mut outcomes = Vec::with_capacity(started.len());
    for one in started {
        outcomes.push(one.settle().await);
    }
    outcomes
}

/// What a refused append is to a producer.
pub(crate) fn outcome_of(error: &AppendError) -> AppendOutcome {
    let message = error.to_string();
    let code = match error {
        AppendError::Batch(BatchError::NotOffered(_)) => {
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        }
        AppendError::Batch(batch) => {
            let mut outcome = AppendOutcome::refused(ErrorCode(batch.code()), message);
            outcome.record_errors = batch
                .record_errors()
                .iter()
                .map(|e| (e.index, e.message))
                .collect();
            return outcome;
        }
        AppendError::Sequence(sequence) => ErrorCode(sequence.code()),
        AppendError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::StaleLeaderEpoch { .. } => ErrorCode::FENCED_LEADER_EPOCH,
        AppendError::OffsetsNotContinuing { .. } | AppendError::StorageFull(_) => {
            ErrorCode::KAFKA_STORAGE_ERROR
        }
        AppendError::Log(log) => code_of_log_error(log),
    };
    AppendOutcome::refused(code, message)
}

/// The protocol's error for a log that does not answer.
pub fn code_of_log_error(error: &LogError) -> ErrorCode {
    match error {
        LogError::Deleted(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        LogError::Truncated { .. } => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        LogError::Offline { .. } | LogError::Storage { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}
