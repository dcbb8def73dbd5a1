//! The metadata log of a single voter: one engine log on the controller's shard, where flushed is committed.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use ringlog_engine::disk::{Disk as _, SMALL_FILE_BYTES_MAX};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, Log, LogError, ReadError, ReadLimit};

use super::log::{LogFailure, MetadataLog};
use super::snapshot::SnapshotId;

/// Most bytes read at a time when the log is replayed.
const REPLAY_READ_BYTES: usize = 1 << 20;

/// The log as one engine log.
pub struct EngineLog<E: Environment> {
    log: Rc<Log<E>>,
    environment: E,
    directory: PathBuf,
}

impl<E: Environment> EngineLog<E> {
    /// Over an open engine log; snapshots lie in `directory`.
    pub fn new(log: Rc<Log<E>>, environment: E, directory: PathBuf) -> Self {
        Self {
            log,
            environment,
            directory,
        }
    }

    async fn snapshot_ids(&self) -> io::Result<Vec<SnapshotId>> {
        let entries = match self.environment.disk().list(&self.directory).await {
            Ok(entries) => entries,
            // Nothing was written behind yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let named = entries
            .iter()
            .filter_map(|entry| SnapshotId::parse(&entry.name));
        let mut ids: Vec<SnapshotId> = named.collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

impl<E: Environment> MetadataLog for EngineLog<E> {
    fn start_offset(&self) -> i64 {
        self.log.log_start_offset()
    }

    fn end_offset(&self) -> i64 {
        self.log.log_end_offset()
    }

    fn committed_offset(&self) -> i64 {
        self.log.flushed_offset()
    }

    async fn append(&self, batch: Bytes) -> Result<(), LogFailure> {
        self.log
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
        self.log
            .flushed(next_offset)
            .await
            .map_err(|error: LogError| LogFailure::Lost(error.to_string()))
    }

    async fn read(&self, offset: i64) -> Result<Bytes, LogFailure> {
        if offset >= self.log.log_end_offset() {
            return Ok(Bytes::new());
        }
        let found = self
            .log
            .read(offset, REPLAY_READ_BYTES, true, ReadLimit::LogEnd)
            .await;
        let found = found.map_err(|error: ReadError| LogFailure::Lost(error.to_string()))?;
        Ok(match found.pieces.as_slice() {
            [only] => only.clone(),
            pieces => Bytes::from(pieces.concat()),
        })
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotId>, LogFailure> {
        self.snapshot_ids().await.map_err(lost)
    }

    async fn read_snapshot(&self, id: SnapshotId) -> Result<Bytes, LogFailure> {
        let path = self.directory.join(id.file_name());
        let content = self.environment.disk().read_small(&path).await;
        content.map(Bytes::from).map_err(lost)
    }

    async fn keep_snapshot(&self, id: SnapshotId, content: Vec<u8>) -> Result<(), LogFailure> {
        if content.len() as u64 > SMALL_FILE_BYTES_MAX {
            let size = content.len();
            let reason = format!(
                "the snapshot has {size} bytes, at most {SMALL_FILE_BYTES_MAX} can be read back"
            );
            return Err(LogFailure::TooLarge(reason));
        }
        let disk = self.environment.disk();
        let refused = |error: io::Error| LogFailure::Full(error.to_string());
        disk.create_dir_all(&self.directory)
            .await
            .map_err(refused)?;
        let path = self.directory.join(id.file_name());
        disk.write_atomic(&path, &content).await.map_err(refused)?;
        let trimmed = self.log.delete_records_before(id.end_offset).await;
        trimmed.map_err(|error| LogFailure::Full(error.to_string()))?;
        for older in self.snapshot_ids().await.map_err(refused)? {
            if older < id {
                let path = self.directory.join(older.file_name());
                disk.remove_file(&path).await.map_err(refused)?;
            }
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> LogFailure {
    LogFailure::Lost(error.to_string())
}
