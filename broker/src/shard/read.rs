//! Fetch at the shard that owns the partitions: read what is there, or say when there is something.
//!
//! Results are slices of the tail cache or of what was read from disk; they cross shards by reference.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ringlog_engine::log::{ReadError, ReadLimit};
use ringlog_net::{ErrorCode, Uuid};

use super::append::code_of_log_error;
use super::{Log, Shard};

/// One partition to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadItem {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// Where to start.
    pub offset: i64,
    /// Most bytes, unless the first batch is larger.
    pub max_bytes: usize,
    /// The epoch the client believes in; -1: it does not say.
    pub current_leader_epoch: i32,
    /// The epoch of the last record the client has; -1: it does not say.
    pub last_fetched_epoch: i32,
    /// Nothing from the last stable offset on, and the aborted transactions with it.
    pub committed: bool,
}

/// What was found in one partition.
#[derive(Clone, Debug, Default)]
pub struct ReadOutcome {
    /// NONE, or why nothing was read.
    pub error: ErrorCode,
    /// Whole batches.
    pub pieces: Vec<Bytes>,
    /// Their length together.
    pub bytes: usize,
    /// Where the next read would start.
    pub next_offset: i64,
    /// Offset after the last record that consumers may see.
    pub high_watermark: i64,
    /// Offset before which every transaction is decided.
    pub last_stable_offset: i64,
    /// Offset after the last record that this client may see.
    pub limit: i64,
    /// Transactions with records in what was read that were aborted: producer id and first offset. With `committed` only.
    pub aborted: Vec<(i64, i64)>,
    /// The log's start.
    pub log_start_offset: i64,
    /// Where the client's log parts from ours: epoch and its end (KIP-595).
    pub diverging: Option<(i32, i64)>,
}

impl ReadOutcome {
    /// A refusal.
    pub fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            limit: -1,
            log_start_offset: -1,
            ..Self::default()
        }
    }
}

impl Shard {
    /// Reads partitions in the given order until `max_bytes` are found; with `min_one` the first batch comes whatever its size (KIP-74).
    pub async fn read_group(
        &self,
        items: &[ReadItem],
        max_bytes: usize,
        min_one: bool,
    ) -> Vec<ReadOutcome> {
        let mut left = max_bytes;
        let mut found = !min_one;
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            let outcome = self.read_one(item, item.max_bytes.min(left), !found).await;
            found |= outcome.bytes > 0;
            left = left.saturating_sub(outcome.bytes);
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn read_one(&self, item: &ReadItem, max_bytes: usize, min_one: bool) -> ReadOutcome {
        let Some(log) = self.log(item.topic_id, item.partition) else {
            return ReadOutcome::refused(match self.topic_settings(item.topic_id) {
                Some(_) => self.missing_log(),
                None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            });
        };
        if let Err(error) = check_epoch(&log, item.current_leader_epoch) {
            return ReadOutcome::refused(error);
        }
        if let Some(diverging) = diverging(&log, item) {
            return ReadOutcome {
                diverging: Some(diverging),
                high_watermark: log.high_watermark(),
                last_stable_offset: log.last_stable_offset(),
                limit: item.offset,
                log_start_offset: log.log_start_offset(),
                next_offset: item.offset,
                ..ReadOutcome::default()
            };
        }
        let limit = match item.committed {
            true => ReadLimit::LastStableOffset,
            false => ReadLimit::HighWatermark,
        };
        let read = async {
            let result = log.read(item.offset, max_bytes, min_one, limit).await?;
            let aborted = match item.committed && !result.is_empty() {
                // A batch that began before the asked offset is read from there, but nobody looks at its beginning.
                true => {
                    log.aborted_transactions(item.offset, result.next_offset)
                        .await?
                }
                false => Vec::new(),
            };
            Ok((result, aborted))
        };
        match read.await {
            Ok((result, aborted)) => ReadOutcome {
                error: ErrorCode::NONE,
                bytes: result.len(),
                next_offset: result.next_offset,
                high_watermark: result.high_watermark,
                last_stable_offset: result.last_stable_offset,
                limit: match item.committed {
                    true => result.last_stable_offset,
                    false => result.high_watermark,
                },
                aborted,
                log_start_offset: result.log_start_offset,
                pieces: result.pieces,
                diverging: None,
            },
            Err(ReadError::OffsetOutOfRange {
                log_start_offset,
                high_watermark,
                last_stable_offset,
                ..
            }) => ReadOutcome {
                high_watermark,
                last_stable_offset,
                log_start_offset,
                ..ReadOutcome::refused(ErrorCode::OFFSET_OUT_OF_RANGE)
            },
            Err(error @ ReadError::Corrupt { .. }) => {
                tracing::error!(%error, "a fetch met damage");
                ReadOutcome::refused(ErrorCode::KAFKA_STORAGE_ERROR)
            }
            Err(ReadError::Log(error)) => ReadOutcome::refused(code_of_log_error(&error)),
        }
    }

    /// Resolves when any of the partitions has something past its offset, with the positions of all that do. What is `committed` has it past its last stable offset.
    pub async fn watch(
        self: Rc<Self>,
        items: Vec<(Uuid, i32, i64)>,
        committed: bool,
    ) -> Vec<usize> {
        let logs: Vec<Option<Rc<Log>>> = items
            .iter()
            .map(|(topic_id, partition, _)| self.log(*topic_id, *partition))
            .collect();
        let wait = async |at: usize| {
            if let Some(log) = &logs[at] {
                // An error is a reason to look again too: the read says what it is.
                let _ = match committed {
                    true => log.wait_for_stable(items[at].2).await,
                    false => log.wait_for(items[at].2).await,
                };
            }
            at
        };
        if items.len() == 1 {
            return vec![wait(0).await];
        }
        let mut waiting: FuturesUnordered<_> = (0..items.len()).map(wait).collect();
        let Some(first) = waiting.next().await else {
            return std::future::pending().await;
        };
        drop(waiting);
        let ready = |at: usize| match &logs[at] {
            Some(log) if committed => log.last_stable_offset() > items[at].2,
            Some(log) => log.high_watermark() > items[at].2,
            None => true,
        };
        let mut all: Vec<usize> = (0..items.len())
            .filter(|at| *at == first || ready(*at))
            .collect();
        all.sort_unstable();
        all
    }
}

/// Compares the epoch a client believes in with ours (KIP-320).
///
/// # Errors
/// FENCED_LEADER_EPOCH when the client is behind, UNKNOWN_LEADER_EPOCH when it is ahead.
pub fn check_epoch(log: &Log, current_leader_epoch: i32) -> Result<(), ErrorCode> {
    match current_leader_epoch {
        -1 => Ok(()),
        epoch if epoch < log.leader_epoch() => Err(ErrorCode::FENCED_LEADER_EPOCH),
        epoch if epoch > log.leader_epoch() => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}

fn diverging(log: &Log, item: &ReadItem) -> Option<(i32, i64)> {
    if item.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end) = log.end_offset_for_epoch(item.last_fetched_epoch);
    (epoch >= 0 && (epoch < item.last_fetched_epoch || end < item.offset)).then_some((epoch, end))
}

/// The protocol's error for a read that failed.
pub fn code_of_read_error(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::Corrupt { .. } => ErrorCode::KAFKA_STORAGE_ERROR,
        ReadError::Log(error) => code_of_log_error(error),
    }
}
