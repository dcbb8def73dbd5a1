//! The engine of one shard: its logs, its journal, and the tasks in the background.
//!
//! Everything runs on the shard's thread. [`Engine::open`] brings back what was there; logs that cannot be trusted come back offline with a reason, never
//! shortened in silence. The engine knows topics by id; which topics ought to exist is the broker's business.

mod background;
mod directories;
mod maintain;
mod open;
mod recovery;
mod relocate;
pub(crate) mod shard;

use std::collections::btree_map::Entry;
use std::io;
use std::rc::Rc;

pub use directories::{Prepared, prepare_directories};

use crate::config::{EngineConfig, LogConfig};
use crate::environment::Environment;
use crate::journal::JournalCounters;
use crate::journal::entry::Item;
use crate::log::{Log, LogError, TopicId, TopicPartition};
use shard::Shard;

/// One shard's storage; clones share it.
pub struct Engine<E: Environment> {
    shard: Rc<Shard<E>>,
}

impl<E: Environment> Clone for Engine<E> {
    fn clone(&self) -> Self {
        Self {
            shard: self.shard.clone(),
        }
    }
}

/// A log that was found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLog {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The topic's id as the directory has it.
    pub topic_id: TopicId,
    /// The last stop was not a clean one: the leader epoch has to be raised.
    pub unclean: bool,
    /// Why the log is offline, if it is.
    pub offline: Option<String>,
}

/// Why the engine cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A disk refused.
    #[error("{0}")]
    Storage(#[from] io::Error),
    /// The data directory is of a newer format.
    #[error(
        "{path} has format {found}, this program knows up to {known}: start the version that wrote it"
    )]
    Format {
        /// Which file says so.
        path: String,
        /// What it says.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// What a file of the engine says makes no sense.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Which file.
        path: String,
        /// How it shows.
        reason: String,
    },
    /// The journal holds acknowledged records of a log that has no directory.
    #[error(
        "the journal holds acknowledged records of topic {topic_id} partition {partition}, which has no directory: restore the directory (is a log.dirs entry missing?) and start again"
    )]
    MissingLog {
        /// The topic's id.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
    },
    /// The journals of a directory were written by another number of shards.
    #[error(
        "the journals under {path} are of {found} shards, {configured} are configured: prepare the directories first"
    )]
    Shards {
        /// Where they are.
        path: String,
        /// What they are of.
        found: u32,
        /// What is configured.
        configured: u32,
    },
    /// The log did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is another log of the same name.
    #[error("{0} exists with another topic id: set it aside or delete it first")]
    NameTaken(TopicPartition),
}

/// Counters and levels of one shard's engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineMetrics {
    /// The journal's.
    pub journal: JournalCounters,
    /// Bytes of tail cache held.
    pub tail_cache_bytes: u64,
    /// Its limit.
    pub tail_cache_bytes_max: u64,
    /// Bytes written to segments since the start.
    pub written_behind_bytes: u64,
    /// Logs.
    pub logs: usize,
    /// Logs that are offline.
    pub logs_offline: usize,
    /// Open segment files.
    pub open_files: usize,
}

/// The shard that a partition belongs to, the same on every start with as many shards.
pub fn shard_of(topic_id: &TopicId, partition: i32, shards: u32) -> u32 {
    // FNV-1a over the id; consecutive partitions then go round the shards.
    let hash = topic_id
        .0
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    ((hash.wrapping_add(partition as u64)) % u64::from(shards.max(1))) as u32
}

impl<E: Environment> Engine<E> {
    /// The log of a partition, if this shard has it.
    pub fn log(&self, topic_id: &TopicId, partition: i32) -> Option<Rc<Log<E>>> {
        self.shard
            .logs
            .borrow()
            .get(&(*topic_id, partition))
            .cloned()
    }

    /// All logs of this shard.
    pub fn logs(&self) -> Vec<Rc<Log<E>>> {
        self.shard.all_logs()
    }

    /// Makes a log, or gives the one that is there its settings. It takes no space on disk before its first append.
    ///
    /// `directory` is an index into the configured log directories; without it the one with the fewest of this shard's logs is taken.
    ///
    /// # Errors
    /// When a partition of the same name but another topic id is there.
    pub async fn create_log(
        &self,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
        directory: Option<usize>,
    ) -> Result<Rc<Log<E>>, EngineError> {
        let key = (topic_id, topic_partition.partition);
        if let Some(log) = self.shard.logs.borrow().get(&key) {
            log.set_config(config);
            return Ok(log.clone());
        }
        if self
            .shard
            .all_logs()
            .iter()
            .any(|log| *log.topic_partition() == topic_partition)
        {
            return Err(EngineError::NameTaken(topic_partition));
        }
        let directory = match directory {
            Some(directory) => directory.min(self.shard.config.log_dirs.len() - 1),
            None => self.least_loaded_directory(),
        };
        // A recovery point of an earlier partition of this name must not meet the new one.
        self.shard
            .forget_recovery_point(directory, &topic_partition)
            .await?;
        let log = Log::new(
            self.shard.clone(),
            topic_partition,
            topic_id,
            directory,
            config,
            0,
        );
        if let Some(reason) = self.shard.journal().failure() {
            log.take_offline(&reason);
        }
        match self.shard.logs.borrow_mut().entry(key) {
            Entry::Occupied(there) => Ok(there.get().clone()),
            Entry::Vacant(free) => Ok(free.insert(log).clone()),
        }
    }

    fn least_loaded_directory(&self) -> usize {
        let mut logs = vec![0usize; self.shard.config.log_dirs.len().max(1)];
        for log in self.shard.logs.borrow().values() {
            logs[log.directory_index()] += 1;
        }
        logs.iter()
            .enumerate()
            .min_by_key(|(_, count)| **count)
            .map_or(0, |(index, _)| index)
    }

    /// Deletes a log: durable in the journal when this returns; its files go in the background after `file.delete.delay.ms`.
    ///
    /// # Errors
    /// When the journal or the directory refuses. Deleting what is not there is fine.
    pub async fn delete_log(&self, topic_id: &TopicId, partition: i32) -> Result<(), EngineError> {
        self.retire(topic_id, partition, "delete").await
    }

    /// Sets a log aside that the cluster does not know: its directory is renamed to `…-stray` and kept.
    ///
    /// # Errors
    /// When the journal or the directory refuses.
    pub async fn set_aside(&self, topic_id: &TopicId, partition: i32) -> Result<(), EngineError> {
        self.retire(topic_id, partition, "stray").await
    }

    async fn retire(
        &self,
        topic_id: &TopicId,
        partition: i32,
        suffix: &str,
    ) -> Result<(), EngineError> {
        let key = (*topic_id, partition);
        let Some(log) = self.log(topic_id, partition) else {
            return Ok(());
        };
        // What is set aside should be whole: its last records are in the journal only.
        if suffix == "stray" && log.checkpoint(true).await.is_none() {
            tracing::warn!(log = %log.topic_partition(), "set aside without its last records, which cannot be written");
        }
        // The log stays where checkpoints find it until the journal has taken the item: it may hold what makes room.
        let (topic_id, kept) = (*topic_id, suffix == "stray");
        let item = if kept {
            Item::SetAside {
                topic_id,
                partition,
            }
        } else {
            Item::Delete {
                topic_id,
                partition,
            }
        };
        let (_, mark) = self
            .shard
            .journal()
            .write_item(&item)
            .await
            .map_err(|reason| io::Error::other(&*reason))?;
        if self.shard.logs.borrow_mut().remove(&key).is_none() {
            // Somebody else was faster.
            mark.unpin();
            return Ok(());
        }
        log.close_deleted();
        let done = log.rename_directory(suffix).await;
        self.shard
            .forget_recovery_point(log.directory_index(), log.topic_partition())
            .await?;
        log.let_go();
        mark.unpin();
        if let Some(renamed) = done?
            && suffix == "delete"
        {
            self.shard.remove_later(renamed);
        }
        Ok(())
    }

    /// Counters and levels.
    pub fn metrics(&self) -> EngineMetrics {
        let logs = self.shard.logs.borrow();
        EngineMetrics {
            journal: self.shard.journal().counters(),
            tail_cache_bytes: self.shard.tail_bytes(),
            tail_cache_bytes_max: self.shard.config.tail_cache_bytes,
            written_behind_bytes: self.shard.written_behind(),
            logs: logs.len(),
            logs_offline: logs.values().filter(|log| log.failure().is_some()).count(),
            open_files: self.shard.open_files(),
        }
    }

    /// The settings the engine was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.shard.config
    }
}
