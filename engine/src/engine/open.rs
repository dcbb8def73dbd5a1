//! Opening a shard: finding its logs, reading its journal, putting what it holds back where it belongs, and stopping cleanly.

use std::path::PathBuf;
use std::rc::Rc;

use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt};

use super::ballast::is_full;
use super::directories::{
    create_directory, journal_identity, read_clean_marker, remove_clean_marker, write_clean_marker,
};
use super::maintain::{OffsetFile, Offsets, read_offsets};
use super::recovery::{first_offset, recover, resolve, segments_of};
use super::shard::Shard;
use super::{Engine, EngineError, LastHandle, RecoveredLog, shard_of};
use crate::checkpoint::{PARTITION_METADATA_FILE, PartitionMetadata};
use crate::config::{EngineConfig, LogConfig};
use crate::disk::Disk;
use crate::environment::Environment;
use crate::journal::Journal;
use crate::journal::scan::{open_clean, scan};
use crate::journal::space::{ChainStart, FILE_BYTES_MIN, first_file_bytes, make_file};
use crate::log::replay::OpenPlan;
use crate::log::{Log, TopicPartition};
use crate::wait::Signal;

/// Logs opened, or closed, at a time.
const OPEN_CONCURRENCY: usize = 16;

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
        let config = config.fitted();
        let began = env.now();
        let phase = |name| {
            tracing::debug!(
                shard = config.shard,
                phase = name,
                after_us = env.now() - began,
                "opening"
            )
        };
        let identity = journal_identity(&env, &config).await?;
        let clean = read_clean_marker(&env, &config).await?;
        let shard = Shard::new(env.clone(), config.clone());
        shard.open_ballast().await;
        let keeper = Rc::new(Signal::default());
        let journal_path = config.journal_path();
        let scanning = async {
            Ok(match clean {
                Some(_) => None,
                None => Some(scan(&env, &journal_path, identity, &keeper, &shard.pool).await?),
            })
        };
        let (scanned, found) = try_join(scanning, find_logs(&shard)).await?;
        let mut views = scanned
            .as_ref()
            .map(|scan| resolve(&scan.items))
            .unwrap_or_default();
        phase("journal scanned and logs found");
        let starts = load_offsets(&shard, OffsetFile::LogStart).await?;
        let points = load_offsets(&shard, OffsetFile::RecoveryPoint).await?;
        let cleaned = load_offsets(&shard, OffsetFile::Cleaned).await?;

        let mut logs = Vec::new();
        for (topic_partition, topic_id, directory) in found {
            let key = (topic_id, topic_partition.partition);
            let view = views.get(&key);
            if view.is_some_and(|view| view.deleted) {
                // Gone by the journal; the rename did not get to the disk.
                let path = config.log_dirs[directory].join(topic_partition.to_string());
                if view.is_some_and(|view| view.kept) {
                    let to = config.log_dirs[directory]
                        .join(shard.retired_name(&topic_partition, "stray"));
                    env.disk().rename(&path, &to).await?;
                } else {
                    super::maintain::remove_directory(&env, &path).await?;
                }
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
        *shard.durable_cleaned.borrow_mut() = cleaned;
        stream::iter(&logs)
            .for_each_concurrent(OPEN_CONCURRENCY, |(log, plan)| async move {
                if let Err(reason) = log.open_from_disk(plan).await {
                    log.take_offline(&reason);
                }
            })
            .await;
        for (log, _) in &logs {
            shard.admit(log);
        }
        phase("logs opened");
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
        phase("journal replayed");
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
        let mut chain = ChainStart {
            next_file_number,
            ..chain
        };
        if damage.is_none() && chain.free.is_empty() {
            let number = chain.next_file_number;
            chain.next_file_number += 1;
            let make = |size| make_file(&env, &journal_path, number, size, &keeper);
            let made = match make(first_file_bytes(&config)).await {
                // A small one will do to get going.
                Err(error) if is_full(&error) => {
                    let small = || make(FILE_BYTES_MIN);
                    shard.write_for_sure(shard.journal_ballast(), small).await
                }
                other => other,
            };
            chain.free.push(made?);
        }
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
        for (key, view) in &views {
            // As long as the journal says so, a start may begin there.
            let log = shard.logs.borrow().get(key).cloned();
            if let (Some(log), Some(offset)) = (log, view.truncated_to) {
                log.note_truncation(offset, journal.last_sequence());
            }
        }
        let weak = Rc::downgrade(&shard);
        journal.on_failure(move |reason| {
            if let Some(shard) = weak.upgrade() {
                for log in shard.all_logs() {
                    log.take_offline(&reason);
                }
            }
        });
        shard.registry.opening.set(false);
        for directory in 0..config.log_dirs.len() {
            shard.restore_ballast(directory).await;
        }
        shard.restore_ballast(shard.journal_ballast()).await;
        phase("ready");
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
        let last = Rc::new(LastHandle(shard.clone()));
        Ok((Self { shard, last }, recovered))
    }

    /// Stops cleanly: everything is written and synced, the segments get their exact size, and the next start scans nothing.
    ///
    /// # Errors
    /// When a disk refuses; the next start then recovers from the journal.
    pub async fn shutdown_clean(&self) -> Result<(), EngineError> {
        let shard = &self.shard;
        let mut reached = Vec::new();
        let mut all_well = true;
        shard.registry.closing.set(true);
        let checkpoints = shard.all_logs().into_iter().map(|log| async move {
            let reached = log.checkpoint(true).await;
            (log, reached)
        });
        let mut checkpoints = stream::iter(checkpoints).buffer_unordered(OPEN_CONCURRENCY);
        while let Some((log, offset)) = checkpoints.next().await {
            match offset {
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
        // What somebody was still at is in the journal only.
        let settled = || {
            shard.registry.retirements.is_free()
                && shard
                    .all_logs()
                    .iter()
                    .all(|log| !log.needs_checkpoint() && !log.is_changing())
        };
        if all_well && journal.failure().is_none() && settled() {
            let mark = || write_clean_marker(&shard.env, &shard.config, journal.last_sequence());
            shard.write_for_sure(shard.journal_ballast(), mark).await?;
        }
        for log in shard.all_logs() {
            log.close_stopped();
        }
        Ok(())
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
