//! What is kept per log directory: recovery points and log start offsets in Kafka's checkpoint format, one file per shard, and the removal of what was
//! deleted.
//!
//! The files of a shard carry its number behind Kafka's name, so that shards do not write over each other. A change of the number of shards merges them into files
//! without a number, which a shard reads as long as it has none of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::EngineError;
use super::shard::Shard;
use crate::checkpoint::{LOG_START_FILE, RECOVERY_POINT_FILE, format_offsets, parse_offsets};
use crate::config::EngineConfig;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::log::{Checkpointed, Log, TopicPartition, ignore_missing};

/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<(Arc<str>, i32), i64>;

/// The files in which a directory keeps offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetFile {
    /// Everything before is synced.
    RecoveryPoint,
    /// Where logs start after DeleteRecords and retention.
    LogStart,
}

impl OffsetFile {
    fn base_name(self) -> &'static str {
        match self {
            OffsetFile::RecoveryPoint => RECOVERY_POINT_FILE,
            OffsetFile::LogStart => LOG_START_FILE,
        }
    }

    fn path(self, directory: &Path, shard: u32) -> PathBuf {
        directory.join(format!("{}.{shard}", self.base_name()))
    }
}

/// Reads a shard's offsets; `None` when neither it nor a merged file is there.
pub(crate) async fn read_offsets<E: Environment>(
    env: &E,
    directory: &Path,
    shard: u32,
    which: OffsetFile,
) -> Result<Offsets, EngineError> {
    for path in [
        which.path(directory, shard),
        directory.join(which.base_name()),
    ] {
        match env.disk().read_small(&path).await {
            Ok(bytes) => {
                let lines = parse_offsets(&bytes).map_err(|error| EngineError::Damaged {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                })?;
                return Ok(lines
                    .into_iter()
                    .map(|line| ((line.topic.into(), line.partition), line.offset))
                    .collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Offsets::new())
}

async fn write_offsets<E: Environment>(env: &E, path: &Path, offsets: &Offsets) -> io::Result<()> {
    let mut lines: Vec<_> = offsets
        .iter()
        .map(|((topic, partition), offset)| (&**topic, *partition, *offset))
        .collect();
    lines.sort_unstable();
    env.disk()
        .write_atomic(path, format_offsets(lines.into_iter()).as_bytes())
        .await
}

/// Puts the offsets of all shards of a directory into the files without a number.
pub(super) async fn merge_checkpoints<E: Environment>(
    env: &E,
    config: &EngineConfig,
) -> Result<(), EngineError> {
    let disk = env.disk();
    for directory in &config.log_dirs {
        for which in [OffsetFile::RecoveryPoint, OffsetFile::LogStart] {
            let prefix = format!("{}.", which.base_name());
            let numbered: Vec<u32> = disk
                .list(directory)
                .await?
                .iter()
                .filter_map(|entry| entry.name.strip_prefix(&prefix)?.parse().ok())
                .collect();
            let merged = directory.join(which.base_name());
            // Number `u32::MAX` belongs to no shard: only the merged file is read.
            let mut offsets = read_offsets(env, directory, u32::MAX, which).await?;
            for shard in &numbered {
                offsets.extend(read_offsets(env, directory, *shard, which).await?);
            }
            write_offsets(env, &merged, &offsets).await?;
            for shard in numbered {
                ignore_missing(disk.remove_file(&which.path(directory, shard)).await)?;
            }
        }
        disk.sync_dir(directory).await?;
    }
    Ok(())
}

fn key(topic_partition: &TopicPartition) -> (Arc<str>, i32) {
    (topic_partition.topic.clone(), topic_partition.partition)
}

impl<E: Environment> Shard<E> {
    /// Makes the recovery points of these logs durable, then lets go of the journal files that held what is before them.
    pub(crate) async fn write_recovery_points(
        &self,
        reached: &[(Rc<Log<E>>, Checkpointed)],
    ) -> io::Result<()> {
        let turn = self.maintenance.enter().await;
        for directory in 0..self.config.log_dirs.len() {
            let here: Vec<_> = reached
                .iter()
                .filter(|(log, reached)| {
                    log.directory_index() == directory && log.may_move_recovery_point(reached)
                })
                .collect();
            if here.is_empty() {
                continue;
            }
            let mut points = self.durable_points.borrow()[directory].clone();
            for (log, reached) in &here {
                // An earlier checkpoint may come later.
                let point = points
                    .entry(key(log.topic_partition()))
                    .or_insert(reached.offset);
                *point = reached.offset.max(*point);
            }
            let path =
                OffsetFile::RecoveryPoint.path(&self.config.log_dirs[directory], self.config.shard);
            write_offsets(&self.env, &path, &points).await?;
            self.durable_points.borrow_mut()[directory] = points;
            for (log, reached) in here {
                log.recovery_point_durable(reached.offset);
            }
        }
        // Whoever works on a log's files may need the turn that is given back here.
        drop(turn);
        for (log, _) in reached {
            log.remove_old_snapshots().await;
        }
        Ok(())
    }

    /// Takes a partition's recovery point and log start offset out of the files, durably.
    pub(crate) async fn forget_recovery_point(
        &self,
        directory: usize,
        topic_partition: &TopicPartition,
    ) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let path = &self.config.log_dirs[directory];
        let mut points = self.durable_points.borrow()[directory].clone();
        if points.remove(&key(topic_partition)).is_some() {
            write_offsets(
                &self.env,
                &OffsetFile::RecoveryPoint.path(path, self.config.shard),
                &points,
            )
            .await?;
            self.durable_points.borrow_mut()[directory] = points;
        }
        let mut starts = self.durable_starts.borrow()[directory].clone();
        if starts.remove(&key(topic_partition)).is_some() {
            write_offsets(
                &self.env,
                &OffsetFile::LogStart.path(path, self.config.shard),
                &starts,
            )
            .await?;
            self.durable_starts.borrow_mut()[directory] = starts;
        }
        Ok(())
    }

    /// Makes a log's start offset durable.
    pub(crate) async fn write_log_start(&self, log: &Log<E>, offset: i64) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let directory = log.directory_index();
        let mut starts = self.durable_starts.borrow()[directory].clone();
        if starts
            .get(&key(log.topic_partition()))
            .is_some_and(|durable| *durable >= offset)
        {
            return Ok(());
        }
        starts.insert(key(log.topic_partition()), offset);
        let path = OffsetFile::LogStart.path(&self.config.log_dirs[directory], self.config.shard);
        write_offsets(&self.env, &path, &starts).await?;
        self.durable_starts.borrow_mut()[directory] = starts;
        Ok(())
    }

    /// Lets the files speak of this shard's logs only, and say no more of them than what was found, durably: a truncation that the journal finished must not be
    /// forgotten, nor may what is said of a deleted log, or of another shard's, be taken for a later one's.
    pub(crate) async fn cap_offsets(&self) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let logs = self.all_logs();
        let all = [
            (OffsetFile::RecoveryPoint, &self.durable_points),
            (OffsetFile::LogStart, &self.durable_starts),
        ];
        for (which, durable) in all {
            for (directory, path) in self.config.log_dirs.iter().enumerate() {
                let mut offsets = durable.borrow()[directory].clone();
                let here = || logs.iter().filter(|log| log.directory_index() == directory);
                let ours: BTreeSet<_> = here().map(|log| key(log.topic_partition())).collect();
                let before = offsets.len();
                offsets.retain(|name, _| ours.contains(name));
                let mut lowered = offsets.len() < before;
                for log in here().filter(|log| log.failure().is_none()) {
                    let found = match which {
                        OffsetFile::RecoveryPoint => log.state.borrow().recovery_point,
                        OffsetFile::LogStart => log.log_start_offset(),
                    };
                    if let Some(offset) = offsets.get_mut(&key(log.topic_partition()))
                        && *offset > found
                    {
                        *offset = found;
                        lowered = true;
                    }
                }
                if lowered {
                    write_offsets(&self.env, &which.path(path, self.config.shard), &offsets)
                        .await?;
                    durable.borrow_mut()[directory] = offsets;
                }
            }
        }
        Ok(())
    }

    /// Lowers a log's recovery point and start durably to `offset`: it was truncated.
    pub(crate) async fn lower_offsets(&self, log: &Log<E>, offset: i64) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let directory = log.directory_index();
        let path = &self.config.log_dirs[directory];
        let all = [
            (OffsetFile::RecoveryPoint, &self.durable_points),
            (OffsetFile::LogStart, &self.durable_starts),
        ];
        for (which, durable) in all {
            let mut offsets = durable.borrow()[directory].clone();
            match offsets.get_mut(&key(log.topic_partition())) {
                Some(recorded) if *recorded > offset => *recorded = offset,
                _ => continue,
            }
            write_offsets(&self.env, &which.path(path, self.config.shard), &offsets).await?;
            durable.borrow_mut()[directory] = offsets;
        }
        Ok(())
    }

    /// A directory's name once its log is retired: `<topic>-<partition>.<random>-<suffix>`.
    pub(crate) fn retired_name(&self, topic_partition: &TopicPartition, suffix: &str) -> String {
        let (high, low) = (self.env.random(), self.env.random());
        let unique = format!(".{high:016x}{low:016x}-{suffix}");
        // File systems take names of up to 255 bytes; topics may use nearly all of them.
        let kept = 255 - unique.len();
        let name = topic_partition.to_string();
        name.chars().take(kept).chain(unique.chars()).collect()
    }

    /// Removes what earlier lives have renamed for removal.
    pub(crate) async fn remove_deleted_directories(self: &Rc<Self>) -> io::Result<()> {
        if self.config.shard != 0 {
            return Ok(());
        }
        for directory in &self.config.log_dirs {
            for entry in self.env.disk().list(directory).await? {
                if entry.is_dir && entry.name.ends_with("-delete") {
                    self.remove_later(directory.join(&entry.name));
                }
            }
        }
        Ok(())
    }

    /// Removes a renamed directory after the delay.
    pub(crate) fn remove_later(self: &Rc<Self>, directory: PathBuf) {
        let shard = self.clone();
        self.env.spawn("removal", async move {
            shard.sleep_or_stop(shard.config.file_delete_delay).await;
            if shard.stopping.get() {
                // The next start finds it by its name.
                return;
            }
            if let Err(error) = remove_directory(&shard.env, &directory).await {
                tracing::warn!(directory = %directory.display(), "a deleted log's files stay: {error}");
            }
        });
    }
}

/// Removes a directory with the files in it.
pub(crate) async fn remove_directory<E: Environment>(env: &E, directory: &Path) -> io::Result<()> {
    for entry in env.disk().list(directory).await? {
        ignore_missing(env.disk().remove_file(&directory.join(&entry.name)).await)?;
    }
    ignore_missing(env.disk().remove_dir(directory).await)
}
