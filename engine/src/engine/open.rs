//! Opening a shard: finding its logs, reading its journal, putting what it holds back where it belongs, and stopping cleanly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::directories::{
    create_directory, journal_identity, read_clean_marker, remove_clean_marker, write_clean_marker,
};
use super::maintain::{OffsetFile, Offsets, read_offsets};
use super::shard::{LogKey, Shard};
use super::{Engine, EngineError, RecoveredLog, shard_of};
use crate::batch::BatchHeader;
use crate::checkpoint::{PARTITION_METADATA_FILE, PartitionMetadata};
use crate::config::{EngineConfig, LogConfig};
use crate::disk::Disk;
use crate::environment::Environment;
use crate::journal::Journal;
use crate::journal::entry::Item;
use crate::journal::scan::{FoundItem, Scan, Window, open_clean, scan};
use crate::journal::space::ChainStart;
use crate::log::flush::Place;
use crate::log::replay::OpenPlan;
use crate::log::{Log, TopicPartition};
use crate::wait::Signal;

/// Logs opened at a time.
const OPEN_CONCURRENCY: usize = 16;

/// What the journal says about one log.
#[derive(Default)]
struct JournalView {
    /// Indices of the items that have to be put back.
    appends: Vec<usize>,
    truncated_to: Option<i64>,
    /// The oldest journal file with a truncation that counts.
    truncated_in: usize,
    deleted: bool,
}

impl<E: Environment> Engine<E> {
    /// Opens a shard: its journal, and the logs found on disk that belong to it.
    ///
    /// # Errors
    /// When a directory cannot be read, is of a newer format, or the journal holds records of a log that is not there. A log that is damaged is no error: it comes
    /// back offline, with the reason.
    pub async fn open(
        env: E,
        config: EngineConfig,
    ) -> Result<(Self, Vec<RecoveredLog>), EngineError> {
        let identity = journal_identity(&env, &config).await?;
        let clean = read_clean_marker(&env, &config).await?;
        let shard = Shard::new(env.clone(), config.clone());
        let keeper = Rc::new(Signal::default());
        let journal_path = config.journal_path();
        let scanned = match clean {
            Some(_) => None,
            None => Some(scan(&env, &journal_path, identity, &keeper).await?),
        };
        let mut views = scanned
            .as_ref()
            .map(|scan| resolve(&scan.items))
            .unwrap_or_default();
        let found = find_logs(&shard).await?;
        let starts = load_offsets(&shard, OffsetFile::LogStart).await?;
        let points = load_offsets(&shard, OffsetFile::RecoveryPoint).await?;

        let mut logs = Vec::new();
        for (topic_partition, topic_id, directory) in found {
            let key = (topic_id, topic_partition.partition);
            let view = views.get(&key);
            if view.is_some_and(|view| view.deleted) {
                // Deleted in the journal; the rename did not get to the disk.
                let path = config.log_dirs[directory].join(topic_partition.to_string());
                super::maintain::remove_directory(&env, &path).await?;
                env.disk().sync_dir(&config.log_dirs[directory]).await?;
                continue;
            }
            let name = (topic_partition.topic.clone(), topic_partition.partition);
            let plan = OpenPlan {
                recovery_point: points[directory].get(&name).copied(),
                log_start: starts[directory].get(&name).copied(),
                truncated_to: view.and_then(|view| view.truncated_to),
                first_in_journal: view
                    .zip(scanned.as_ref())
                    .and_then(|(view, scan)| first_offset(view, scan)),
                segments: view
                    .map(|view| segments_of(view, scanned.as_ref()))
                    .unwrap_or_default(),
                clean: clean.is_some(),
            };
            let log = Log::new(
                shard.clone(),
                topic_partition,
                topic_id,
                directory,
                settings_until_told(),
                0,
            );
            logs.push((log, plan));
        }
        *shard.durable_points.borrow_mut() = points;
        *shard.durable_starts.borrow_mut() = starts;
        stream::iter(&logs)
            .for_each_concurrent(OPEN_CONCURRENCY, |(log, plan)| async move {
                if let Err(reason) = log.open_from_disk(plan).await {
                    log.take_offline(&reason);
                }
            })
            .await;
        for (log, _) in &logs {
            shard.logs.borrow_mut().insert(
                (log.topic_id(), log.topic_partition().partition),
                log.clone(),
            );
        }
        drop(logs);

        shard.start_writing();
        let damage = scanned.as_ref().and_then(|scan| scan.damage.clone());
        let chain = match scanned {
            Some(scan) => recover(&shard, scan, &mut views).await?,
            None => ChainStart {
                live: Vec::new(),
                next_file_number: 0,
                free: open_clean(&env, &journal_path, identity, &keeper).await?,
                previous_sequence: 0,
                previous_checksum: 0,
                next_sequence: clean.unwrap_or(0) + 1,
            },
        };
        for log in shard.all_logs() {
            log.finish_opening();
        }
        shard.cap_offsets().await?;
        let next_file_number = chain
            .free
            .iter()
            .map(|file| file.number + 1)
            .max()
            .unwrap_or(0)
            .max(chain.next_file_number);
        let chain = ChainStart {
            next_file_number,
            ..chain
        };
        let pool = shard.pool.clone();
        let journal = match damage {
            Some(damage) => {
                Journal::unusable(&env, &config, identity, pool, keeper, chain, &damage)
            }
            None => Journal::start(&env, &config, identity, pool, keeper, chain).await?,
        };
        if clean.is_some() {
            remove_clean_marker(&env, &config).await?;
        }
        shard.set_journal(journal.clone());
        let weak = Rc::downgrade(&shard);
        journal.on_failure(move |reason| {
            if let Some(shard) = weak.upgrade() {
                for log in shard.all_logs() {
                    log.take_offline(&reason);
                }
            }
        });
        shard.start_maintenance();
        shard.remove_deleted_directories().await?;
        let recovered = shard
            .all_logs()
            .iter()
            .map(|log| RecoveredLog {
                topic_partition: log.topic_partition().clone(),
                topic_id: log.topic_id(),
                unclean: clean.is_none(),
                offline: log.failure().map(|reason| reason.to_string()),
            })
            .collect();
        Ok((Self { shard }, recovered))
    }

    /// Stops cleanly: everything is written and synced, the segments get their exact size, and the next start scans nothing.
    ///
    /// # Errors
    /// When a disk refuses; the next start then recovers from the journal.
    pub async fn shutdown_clean(&self) -> Result<(), EngineError> {
        let shard = &self.shard;
        let mut reached = Vec::new();
        let mut all_well = true;
        for log in shard.all_logs() {
            log.refuse_appends();
            match log.checkpoint(true).await {
                Some(offset) => reached.push((log, offset)),
                None => all_well = false,
            }
        }
        shard.stopping.set(true);
        shard.stop_signal.happen();
        shard.write_signal.happen();
        shard.aging_signal.raise();
        shard.write_recovery_points(&reached).await?;
        let journal = shard.journal();
        journal.stop().await;
        if all_well && journal.failure().is_none() {
            write_clean_marker(&shard.env, &shard.config, journal.last_sequence()).await?;
        }
        for log in shard.all_logs() {
            log.close_stopped();
        }
        Ok(())
    }
}

fn first_offset<E: Environment>(view: &JournalView, scan: &Scan<E>) -> Option<i64> {
    match scan.items[*view.appends.first()?].read.item {
        Item::Append { base_offset, .. } => Some(base_offset),
        _ => None,
    }
}

/// What a log found on disk goes by until the broker tells its settings: nothing rolls, because the journal says where its batches belong, and nothing expires.
fn settings_until_told() -> LogConfig {
    LogConfig {
        segment_bytes: u64::from(u32::MAX),
        segment_ms: i64::MAX,
        segment_index_bytes: u64::from(u32::MAX),
        delete: false,
        ..LogConfig::default()
    }
}

fn segments_of<E: Environment>(view: &JournalView, scan: Option<&Scan<E>>) -> BTreeSet<i64> {
    let Some(scan) = scan else {
        return Default::default();
    };
    let bases = view
        .appends
        .iter()
        .filter_map(|index| match scan.items[*index].read.item {
            Item::Append { segment_base, .. } => Some(segment_base),
            _ => None,
        });
    bases.collect()
}

/// What the chain's items, in order, leave to be done for each log.
fn resolve(items: &[FoundItem]) -> BTreeMap<LogKey, JournalView> {
    let mut views: BTreeMap<LogKey, JournalView> = BTreeMap::new();
    for (index, found) in items.iter().enumerate() {
        match found.read.item {
            Item::Append {
                topic_id,
                partition,
                ..
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                // Made anew under its id: the directory that is there is the new one's.
                view.deleted = false;
                view.appends.push(index);
            }
            Item::Truncate {
                topic_id,
                partition,
                offset,
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                view.appends.retain(|index| {
                    matches!(items[*index].read.item, Item::Append { last_offset, .. } if last_offset < offset)
                });
                if view.truncated_to.is_none() {
                    view.truncated_in = found.file;
                }
                view.truncated_to = Some(
                    view.truncated_to
                        .map_or(offset, |lowest| lowest.min(offset)),
                );
            }
            Item::Delete {
                topic_id,
                partition,
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                *view = JournalView {
                    deleted: true,
                    ..JournalView::default()
                };
            }
            Item::LifeStart { .. } | Item::Checkpoint => {}
        }
    }
    views
}

/// The directories of logs that belong to this shard: partition, topic id, index of the log directory.
async fn find_logs<E: Environment>(
    shard: &Shard<E>,
) -> Result<Vec<(TopicPartition, crate::log::TopicId, usize)>, EngineError> {
    let disk = shard.env.disk();
    let mut found = Vec::new();
    for (index, directory) in shard.config.log_dirs.iter().enumerate() {
        create_directory(&shard.env, directory).await?;
        let candidates: Vec<(TopicPartition, PathBuf)> = disk
            .list(directory)
            .await?
            .into_iter()
            .filter(|entry| entry.is_dir)
            .filter_map(|entry| {
                Some((
                    partition_of(&entry.name)?,
                    directory.join(&entry.name).join(PARTITION_METADATA_FILE),
                ))
            })
            .collect();
        let read = stream::iter(candidates).map(|(topic_partition, path)| async move {
            let bytes = disk.read_small(&path).await;
            (topic_partition, path, bytes)
        });
        let mut read = read.buffer_unordered(OPEN_CONCURRENCY);
        while let Some((topic_partition, path, bytes)) = read.next().await {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                // The making of the log was cut short before anything could be appended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let metadata =
                PartitionMetadata::parse(&bytes).map_err(|error| EngineError::Damaged {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                })?;
            if shard_of(
                &metadata.topic_id,
                topic_partition.partition,
                shard.config.shards,
            ) == shard.config.shard
            {
                found.push((topic_partition, metadata.topic_id, index));
            }
        }
    }
    Ok(found)
}

/// The partition that a directory's name stands for; `None` for anything else, set aside or deleted logs among them.
fn partition_of(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    let partition: i32 = partition.parse().ok().filter(|partition| *partition >= 0)?;
    (!topic.is_empty()).then(|| TopicPartition::new(topic, partition))
}

async fn load_offsets<E: Environment>(
    shard: &Shard<E>,
    which: OffsetFile,
) -> Result<Vec<Offsets>, EngineError> {
    let mut all = Vec::new();
    for directory in &shard.config.log_dirs {
        all.push(read_offsets(&shard.env, directory, shard.config.shard, which).await?);
    }
    Ok(all)
}

/// Puts back what the journal holds and says where the new life takes it up.
async fn recover<E: Environment>(
    shard: &Rc<Shard<E>>,
    mut scan: Scan<E>,
    views: &mut BTreeMap<LogKey, JournalView>,
) -> Result<ChainStart<E>, EngineError> {
    let needed: BTreeSet<usize> = views
        .values()
        .flat_map(|view| view.appends.iter().copied())
        .collect();
    let mut window = Window::default();
    let mut window_file = usize::MAX;
    for (index, found) in scan.items.iter().enumerate() {
        let Item::Append {
            topic_id,
            partition,
            segment_base,
            position,
            last_offset,
            ..
        } = found.read.item
        else {
            continue;
        };
        if !needed.contains(&index) {
            continue;
        }
        let log = shard.logs.borrow().get(&(topic_id, partition)).cloned();
        let Some(log) = log else {
            return Err(EngineError::MissingLog {
                topic_id,
                partition,
            });
        };
        if log.failure().is_some() {
            scan.files[found.file].mark.pin();
            continue;
        }
        if last_offset < log.log_end_offset() {
            continue;
        }
        if window_file != found.file {
            window = Window::default();
            window_file = found.file;
        }
        let file = &scan.files[found.file];
        let entry = window.entry_bytes(file, found).await?;
        let at = Place {
            segment: segment_base,
            position: u64::from(position),
        };
        if let Err(reason) = replay_item(&log, at, &entry, found, &file.mark).await {
            log.take_offline(&reason);
            file.mark.pin();
        }
    }
    for (key, view) in views.iter() {
        // A truncation is forgotten only once the recovery point says it.
        let log = shard.logs.borrow().get(key).cloned();
        if let (Some(log), Some(_)) = (log, view.truncated_to)
            && let Some(file) = scan.files.get(view.truncated_in)
        {
            log.hold(&file.mark);
        }
    }
    if let Some(damage) = &scan.damage {
        for log in shard.all_logs() {
            log.take_offline(damage);
        }
    }
    let free = scan.files.split_off(scan.in_chain);
    Ok(ChainStart {
        live: scan.files,
        free,
        next_file_number: scan.next_file_number,
        previous_sequence: scan.last.map_or(0, |last| last.sequence),
        previous_checksum: scan.last.map_or(0, |last| last.checksum),
        next_sequence: scan.max_sequence + 1,
    })
}

async fn replay_item<E: Environment>(
    log: &Log<E>,
    at: Place,
    entry: &Bytes,
    found: &FoundItem,
    mark: &Rc<crate::journal::FileMark>,
) -> Result<(), String> {
    let parts: Vec<&[u8]> = found
        .read
        .body
        .iter()
        .map(|range| &entry[range.clone()])
        .filter(|part| !part.is_empty())
        .collect();
    let mut head = [0; crate::batch::HEADER_BYTES];
    let mut filled = 0;
    for part in &parts {
        let count = part.len().min(head.len() - filled);
        head[filled..filled + count].copy_from_slice(&part[..count]);
        filled += count;
    }
    let header = BatchHeader::parse(&head[..filled])
        .map_err(|error| format!("the journal holds no batch where it says: {error}"))?;
    log.replay(at, &parts, &header, mark).await
}
