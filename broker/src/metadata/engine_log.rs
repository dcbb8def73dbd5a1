//! The metadata log of a single voter: one engine log on the controller's shard, where flushed is committed.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, LogError, ReadError, ReadLimit};

use super::log::{LogFailure, MetadataLog};

/// Most bytes read at a time when the log is replayed.
const REPLAY_READ_BYTES: usize = 1 << 20;

/// The log as one engine log.
pub struct EngineLog<E: Environment>(Rc<Log<E>>);

impl<E: Environment> EngineLog<E> {
    /// Over an open engine log.
    pub fn new(log: Rc<Log<E>>) -> Self {
        Self(log)
    }
}

impl<E: Environment> MetadataLog for EngineLog<E> {
    fn start_offset(&self) -> i64 {
        self.0.log_start_offset()
    }

    fn end_offset(&self) -> i64 {
        self.0.log_end_offset()
    }

    fn committed_offset(&self) -> i64 {
        self.0.flushed_offset()
    }

    async fn append(&self, batch: Bytes) -> Result<(), LogFailure> {
        self.0
            .append_raw(batch)
            .await
            .map(drop)
            .map_err(|error| match error {
                AppendError::StorageFull(_) => LogFailure::Full(error.to_string()),
                AppendError::TooLarge { .. } => LogFailure::TooLarge(error.to_string()),
                other => LogFailure::Lost(other.to_string()),
            })
    }

    async fn committed(&self, next_offset: i64) -> Result<(), LogFailure> {
        self.0
            .flushed(next_offset)
            .await
            .map_err(|error: LogError| LogFailure::Lost(error.to_string()))
    }

    async fn read(&self, offset: i64) -> Result<Bytes, LogFailure> {
        if offset >= self.0.log_end_offset() {
            return Ok(Bytes::new());
        }
        let found = self
            .0
            .read(offset, REPLAY_READ_BYTES, true, ReadLimit::LogEnd)
            .await;
        let found = found.map_err(|error: ReadError| LogFailure::Lost(error.to_string()))?;
        Ok(match found.pieces.as_slice() {
            [only] => only.clone(),
            pieces => Bytes::from(pieces.concat()),
        })
    }
}
