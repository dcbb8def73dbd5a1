//! The engine of one shard: its logs, its journal, and the tasks in the background.
//!
//! Everything runs on the shard's thread. [`Engine::open`] brings back what was there; logs that cannot be trusted come back offline with a reason, never
//! shortened in silence. The engine knows topics by id; which topics ought to exist is the broker's business.

mod background;
pub(crate) mod ballast;
pub(crate) mod cleaner;
mod directories;
mod maintain;
mod open;
mod recovery;
mod registry;
mod relocate;
mod retire;
pub(crate) mod shard;

use std::io;
use std::rc::Rc;

pub use cleaner::CleanerCounters;
pub use directories::{Prepared, prepare_directories};

use crate::config::{EngineConfig, LogConfig};
use crate::environment::Environment;
use crate::journal::JournalCounters;
use crate::log::{Log, LogError, TopicId, TopicPartition};
use shard::Shard;

/// One shard's storage; clones share it.
pub struct Engine<E: Environment> {
    shard: Rc<Shard<E>>,
    last: Rc<LastHandle<E>>,
}

/// Breaks the circle between a shard and its logs when nobody has the engine any more, so that their memory goes with it.
struct LastHandle<E: Environment>(Rc<Shard<E>>);

impl<E: Environment> Drop for LastHandle<E> {
    fn drop(&mut self) {
        let logs = std::mem::take(&mut *self.0.logs.borrow_mut());
        drop(logs);
    }
}

impl<E: Environment> Clone for Engine<E> {
    fn clone(&self) -> Self {
        Self {
            shard: self.shard.clone(),
            last: self.last.clone(),
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
    /// Batches that the start left in the journal, where they are read when somebody needs them.
    pub parked_batches: u64,
    /// Those of them that are in their log's tail or file by now.
    pub settled_batches: u64,
    /// Logs.
    pub logs: usize,
    /// Logs that are offline.
    pub logs_offline: usize,
    /// Open segment files.
    pub open_files: usize,
    /// The cleaner's.
    pub cleaner: CleanerCounters,
    /// Logs that a transaction is open in.
    pub logs_with_open_transactions: usize,
    /// Age of the oldest of these, as long as it is known here, in ms; 0 when there is none.
    pub oldest_open_transaction_ms: i64,
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
        let logs = self.shard.logs.borrow();
        let log = logs.get(&(*topic_id, partition))?;
        (!log.is_gone()).then(|| log.clone())
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
        let shard = &self.shard;
        let key = (topic_id, topic_partition.partition);
        let directory = match directory {
            Some(directory) => directory.min(shard.config.log_dirs.len() - 1),
            None => shard.registry.least_loaded_directory(),
        };
        loop {
            if shard.registry.closing.get() {
                return Err(LogError::stopping(&topic_partition).into());
            }
            let there = shard.logs.borrow().get(&key).cloned();
            let there = there.or_else(|| shard.named(&topic_partition));
            match there {
                // Its name is free once it has left.
                Some(log) if log.is_retiring() && !shard.registry.retirements.is_free() => {
                    drop(shard.registry.retirements.enter().await);
                }
                Some(log) if log.topic_id() == topic_id && !log.is_retiring() => {
                    log.set_config(config);
                    return Ok(log);
                }
                Some(_) => return Err(EngineError::NameTaken(topic_partition)),
                // What is said of an earlier partition of this name must not meet the new one.
                None if shard.says_offsets_of(directory, &topic_partition) => {
                    shard.forget_offsets(directory, &topic_partition).await?;
                }
                None => break,
            }
        }
        let log = Log::new(
            shard.clone(),
            topic_partition,
            topic_id,
            directory,
            config,
            0,
        );
        if let Some(reason) = shard.journal().failure() {
            log.take_offline(&reason);
        }
        shard.admit(&log);
        Ok(log)
    }

    /// Lets the cleaner look at the logs now, as if it were `now_ms`; resolves when nothing is due any more, or something has to wait.
    pub async fn clean_now(&self, now_ms: i64) {
        self.shard.clean_what_is_due(now_ms).await;
    }

    /// Counters and levels.
    pub fn metrics(&self) -> EngineMetrics {
        let logs = self.shard.logs.borrow();
        let open = logs
            .values()
            .filter_map(|log| log.oldest_open_transaction_ms());
        let [parked_batches, settled_batches] = self.shard.parked();
        EngineMetrics {
            parked_batches,
            settled_batches,
            journal: self.shard.journal().counters(),
            tail_cache_bytes: self.shard.tail_bytes(),
            tail_cache_bytes_max: self.shard.config.tail_cache_bytes,
            written_behind_bytes: self.shard.written_behind(),
            logs: logs.len(),
            logs_offline: logs.values().filter(|log| log.failure().is_some()).count(),
            open_files: self.shard.open_files(),
            cleaner: self.shard.cleaner.counters(),
            logs_with_open_transactions: open.clone().count(),
            oldest_open_transaction_ms: open.max().unwrap_or(0),
        }
    }

    /// The settings the engine was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.shard.config
    }
}
