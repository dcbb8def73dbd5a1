//! What is kept per log directory: recovery points and log start offsets in Kafka's checkpoint format, one file per shard, and the removal of what was
//! deleted.
//!
//! The files of a shard carry its number behind Kafka's name, so that shards do not write over each other. A change of the number of shards merges them into files
//! without a number, which a shard reads as long as it has none of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::EngineError;
use super::ballast::{BALLAST_FILE, is_full, may_pass};
use super::shard::Shard;
use crate::checkpoint::{
    CLEANER_OFFSET_FILE, LOG_START_FILE, RECOVERY_POINT_FILE, format_offsets, parse_offsets,
};
use crate::config::EngineConfig;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::log::{Checkpointed, Log, TopicPartition, ignore_missing};

/// The largest file of offsets that is read: a million partitions with the longest names there are.
const OFFSETS_BYTES_MAX: u64 = 1_000_000 * 300;

/// A partition as the offset files name it.
pub(crate) type OffsetName = (Arc<str>, i32);
/// Offsets by partition.
pub(crate) type Offsets = BTreeMap<OffsetName, i64>;

/// The files in which a directory keeps offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OffsetFile {
    /// Everything before is synced.
    RecoveryPoint,
    /// Where logs start after DeleteRecords and retention.
    LogStart,
    /// How far compacted logs are clean.
    Cleaned,
}

impl OffsetFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RecoveryPoint, Self::LogStart, Self::Cleaned];

    fn base_name(self) -> &'static str {
        match self {
            OffsetFile::RecoveryPoint => RECOVERY_POINT_FILE,
            OffsetFile::LogStart => LOG_START_FILE,
            OffsetFile::Cleaned => CLEANER_OFFSET_FILE,
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
        match env.disk().read_whole(&path, OFFSETS_BYTES_MAX).await {
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

/// Puts the offsets of all `before` shards of a directory into the files without a number.
///
/// What such a file says since an earlier change holds only for a shard that has had no reason to make its own: that of another still names the logs that have
/// been deleted since, whose names may be others' by now.
pub(super) async fn merge_checkpoints<E: Environment>(
    env: &E,
    config: &EngineConfig,
    before: u32,
) -> Result<(), EngineError> {
    let disk = env.disk();
    for directory in &config.log_dirs {
        for which in OffsetFile::ALL {
            let prefix = format!("{}.", which.base_name());
            let entries = disk.list(directory).await?;
            // Each shard makes its own anew, and there may be fewer.
            for entry in entries
                .iter()
                .filter(|entry| entry.name.starts_with(BALLAST_FILE))
            {
                ignore_missing(disk.remove_file(&directory.join(&entry.name)).await)?;
            }
            let numbered: Vec<u32> = entries
                .iter()
                .filter_map(|entry| entry.name.strip_prefix(&prefix)?.parse().ok())
                .collect();
            let merged = directory.join(which.base_name());
            let mut offsets = match (0..before).all(|shard| numbered.contains(&shard)) {
                true => Offsets::new(),
                // Number `u32::MAX` belongs to no shard: only the merged file is read.
                false => read_offsets(env, directory, u32::MAX, which).await?,
            };
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

/// What the offset files call a partition.
pub(super) fn name_of(topic_partition: &TopicPartition) -> OffsetName {
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
            let write = self.update_offsets(OffsetFile::RecoveryPoint, directory, |points| {
                for (log, reached) in &here {
                    // An earlier checkpoint may come later.
                    let point = points
                        .entry(name_of(log.topic_partition()))
                        .or_insert(reached.offset);
                    *point = reached.offset.max(*point);
                }
                true
            });
            if let Err(error) = write.await {
                self.note_shortage(&error);
                return Err(error);
            }
            for (log, reached) in here {
                log.recovery_point_durable(reached.offset);
            }
        }
        if !reached.is_empty() {
            self.registry.short.set(false);
            self.journal().room_may_come();
        }
        // Whoever works on a log's files may need the turn that is given back here.
        drop(turn);
        for (log, _) in reached {
            log.remove_old_snapshots().await;
        }
        Ok(())
    }

    /// A checkpoint failed. If that is for want of something that may come back, it will be tried again, and whoever waits for room in the journal is told why there is none.
    pub(crate) fn note_shortage(&self, error: &io::Error) {
        if !may_pass(error) {
            return;
        }
        if !self.registry.short.replace(true) {
            tracing::warn!("checkpoints have to wait for space or descriptors: {error}");
        }
        if is_full(error) {
            self.journal().room_may_not_come(error.to_string());
        }
    }

    fn durable_offsets(&self, which: OffsetFile) -> &RefCell<Vec<Offsets>> {
        match which {
            OffsetFile::RecoveryPoint => &self.durable_points,
            OffsetFile::LogStart => &self.durable_starts,
            OffsetFile::Cleaned => &self.durable_cleaned,
        }
    }

    /// Changes a directory's offsets durably, if `change` says that it changes anything, and takes out what is said of logs that are gone. The caller has the turn.
    async fn update_offsets(
        &self,
        which: OffsetFile,
        directory: usize,
        change: impl FnOnce(&mut Offsets) -> bool,
    ) -> io::Result<()> {
        let durable = self.durable_offsets(which);
        let mut offsets = durable.borrow()[directory].clone();
        let gone = self.registry.forgotten_in(which, directory);
        for name in &gone {
            offsets.remove(name);
        }
        if !change(&mut offsets) {
            return Ok(());
        }
        let path = which.path(&self.config.log_dirs[directory], self.config.shard);
        let write = || write_offsets(&self.env, &path, &offsets);
        self.write_for_sure(directory, write).await?;
        durable.borrow_mut()[directory] = offsets;
        self.registry.taken_out(which, directory, gone);
        Ok(())
    }

    /// Whether the files of a directory may say something of a partition of this name.
    pub(super) fn says_offsets_of(
        &self,
        directory: usize,
        topic_partition: &TopicPartition,
    ) -> bool {
        let name = name_of(topic_partition);
        OffsetFile::ALL
            .into_iter()
            .any(|which| self.says_offset_of(which, directory, &name))
    }

    fn says_offset_of(&self, which: OffsetFile, directory: usize, name: &OffsetName) -> bool {
        self.durable_offsets(which).borrow()[directory].contains_key(name)
            || self.registry.is_forgotten(which, directory, name)
    }

    /// Takes what is said of a partition of this name out of a directory's files, durably.
    pub(super) async fn forget_offsets(
        &self,
        directory: usize,
        topic_partition: &TopicPartition,
    ) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let name = name_of(topic_partition);
        for which in OffsetFile::ALL {
            if self.says_offset_of(which, directory, &name) {
                let write = self.update_offsets(which, directory, |offsets| {
                    offsets.remove(&name);
                    true
                });
                write.await?;
            }
        }
        Ok(())
    }

    /// Takes everything out of the files that is said of logs that are gone.
    pub(super) async fn take_out_forgotten(&self) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        for directory in 0..self.config.log_dirs.len() {
            for which in OffsetFile::ALL {
                self.update_offsets(which, directory, |_| true).await?;
            }
        }
        Ok(())
    }

    /// Makes a log's start offset durable.
    ///
    /// # Errors
    /// When the disk refuses, or the log no longer answers: what was written then would be taken for the next one's of its name.
    pub(crate) async fn write_log_start(&self, log: &Log<E>, offset: i64) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        log.check_online().map_err(io::Error::other)?;
        let name = name_of(log.topic_partition());
        let write = self.update_offsets(OffsetFile::LogStart, log.directory_index(), |starts| {
            if starts.get(&name).is_some_and(|durable| *durable >= offset) {
                return false;
            }
            starts.insert(name, offset);
            true
        });
        write.await
    }

    /// Notes durably up to where a log is clean, if `still` holds when it is its turn.
    pub(super) async fn write_cleaned(
        &self,
        log: &Log<E>,
        offset: i64,
        still: impl Fn() -> bool,
    ) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let name = name_of(log.topic_partition());
        let write = self.update_offsets(OffsetFile::Cleaned, log.directory_index(), |cleaned| {
            still() && cleaned.insert(name, offset) != Some(offset)
        });
        write.await
    }

    /// Lets the files speak of this shard's logs only, and say no more of them than what was found, durably: a truncation that the journal finished must not be
    /// forgotten, nor may what is said of a deleted log, or of another shard's, be taken for a later one's.
    pub(crate) async fn cap_offsets(&self) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let logs = self.all_logs();
        for which in OffsetFile::ALL {
            for directory in 0..self.config.log_dirs.len() {
                let here = || logs.iter().filter(|log| log.directory_index() == directory);
                let ours: BTreeSet<_> = here().map(|log| name_of(log.topic_partition())).collect();
                let write = self.update_offsets(which, directory, |offsets| {
                    let before = offsets.len();
                    offsets.retain(|name, _| ours.contains(name));
                    let mut lowered = offsets.len() < before;
                    for log in here().filter(|log| log.failure().is_none()) {
                        let found = match which {
                            OffsetFile::RecoveryPoint => log.state.borrow().recovery_point,
                            OffsetFile::LogStart => log.log_start_offset(),
                            OffsetFile::Cleaned => log.log_end_offset(),
                        };
                        if let Some(offset) = offsets.get_mut(&name_of(log.topic_partition()))
                            && *offset > found
                        {
                            *offset = found;
                            lowered = true;
                        }
                    }
                    lowered
                });
                write.await?;
            }
        }
        Ok(())
    }

    /// Lowers a log's recovery point and start durably to `offset`: it was truncated.
    pub(crate) async fn lower_offsets(&self, log: &Log<E>, offset: i64) -> io::Result<()> {
        let _turn = self.maintenance.enter().await;
        let name = name_of(log.topic_partition());
        for which in OffsetFile::ALL {
            let write = self.update_offsets(which, log.directory_index(), |offsets| {
                match offsets.get_mut(&name) {
                    Some(recorded) if *recorded > offset => *recorded = offset,
                    _ => return false,
                }
                true
            });
            write.await?;
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
