//! Putting a cleaned segment in the place of those it was made from, so that after a crash either is there and never a mixture.
//!
//! Kafka's names, and an order that holds on a disk that forgets every change of a name until its directory is synced:
//!
//! 1. The new segment is written and synced as `<base>.log.cleaned`, its indexes as `….cleaned` too. A start that finds these removes them.
//! 2. The indexes become `….swap`, synced; then `<base>.log.cleaned` becomes `<base>.log.swap`, synced. From here on the new segment is the log's, and a start goes on from here.
//! 3. The files of the other old segments are removed and the indexes take their final names, synced; then the log file does, in place of the old one, synced.
//!
//! In memory the new segment takes the old ones' place between 2 and 3, all at once; it keeps its open file until its name is final. Who is reading holds the old file, or notices that segments
//! were replaced and starts again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clean::CleanFailure;
use super::clean_files::{SealedOutput, SegmentReader};
use super::{Log, ignore_missing};
use crate::cleaner::range::SegmentFacts;
use crate::disk::{DirEntry, Disk, DiskFile, OpenOptions};
use crate::engine::ballast::may_pass;
use crate::environment::Environment;
use crate::log::tail::LetGo;
use crate::segment::{EncodedIndexes, SEGMENT_KINDS, Segment, base_offset_of, file_name, path};

const CLEANED_SUFFIX: &str = ".cleaned";
const SWAP_SUFFIX: &str = ".swap";
/// The kinds of a segment's files beside the log file.
const SIDE_KINDS: [&str; 3] = ["index", "timeindex", "txnindex"];
/// How long space or descriptors that are missing half-way are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_TIMES: usize = 60;

/// The path of a file in the making.
pub(super) fn cleaned_path(directory: &Path, base: i64, kind: &str) -> PathBuf {
    directory.join(format!("{}{CLEANED_SUFFIX}", file_name(base, kind)))
}

fn swap_path(directory: &Path, base: i64, kind: &str) -> PathBuf {
    directory.join(format!("{}{SWAP_SUFFIX}", file_name(base, kind)))
}

impl<E: Environment> Log<E> {
    /// Puts a cleaned segment in the place of `members`, if they are still there as they were.
    pub(super) async fn put_in_place(
        &self,
        members: &[SegmentFacts],
        output: SealedOutput<E>,
        truncations: u64,
    ) -> Result<(), CleanFailure> {
        let _io = self.io.enter().await;
        self.check_cleanable(truncations)?;
        // Free, as was just seen: this waits for nobody.
        let _replacing = self.replacing.enter().await;
        let had_transaction_file = {
            let state = self.state.borrow();
            let mut had = false;
            for member in members {
                let Some(segment) = state.segments.get(&member.base) else {
                    return Err(CleanFailure::Interrupted("a segment has expired"));
                };
                if !segment.sealed || segment.size != member.size {
                    return Err(CleanFailure::Interrupted("a segment has changed"));
                }
                had |= segment.has_transaction_file;
            }
            had
        };
        let end = members.last().map_or(output.base, |member| member.end);
        self.remove_snapshots_up_to(end).await?;
        let encoded = EncodedIndexes::of(&output.indexes, had_transaction_file);
        self.commit_swap(&output, &encoded).await?;
        // Whoever makes the old ones' indexes anew must not put them over the new one's.
        let _indexing = self.indexing.enter().await;
        let base = output.base;
        self.replace_in_memory(members, output, encoded.has_transactions());
        let others: Vec<i64> = members[1..].iter().map(|member| member.base).collect();
        let mut finished = self.finish_swap(base, &others).await;
        for _ in 0..PATIENCE_TIMES {
            if !finished.as_ref().is_err_and(may_pass) {
                break;
            }
            self.shard.sleep_or_stop(PATIENCE).await;
            finished = self.finish_swap(base, &others).await;
        }
        if let Err(error) = finished {
            self.take_offline(&format!(
                "putting the cleaned segment {base} in place failed ({error}); restart the broker to finish it"
            ));
            return Err(CleanFailure::Interrupted("its directory refuses changes"));
        }
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.pinned = false;
        }
        self.shard.indexes_loaded(self, base);
        Ok(())
    }

    /// From the cleaned files to the point from which the new segment counts.
    async fn commit_swap(
        &self,
        output: &SealedOutput<E>,
        encoded: &EncodedIndexes,
    ) -> Result<(), CleanFailure> {
        let directory = self.path();
        let disk = self.shard.env.disk();
        let base = output.base;
        for (kind, bytes) in SIDE_KINDS.into_iter().zip(encoded.all()) {
            let Some(bytes) = bytes else { continue };
            let to = cleaned_path(&directory, base, kind);
            let write = || disk.write_atomic(&to, bytes);
            self.shard.write_for_sure(self.directory, write).await?;
            disk.rename(&to, &swap_path(&directory, base, kind)).await?;
        }
        disk.sync_dir(&directory).await?;
        let (from, to) = (
            cleaned_path(&directory, base, "log"),
            swap_path(&directory, base, "log"),
        );
        disk.rename(&from, &to).await?;
        if let Err(error) = disk.sync_dir(&directory).await {
            // Whether the next start finds the new segment is not known: it must not.
            let undone = async {
                disk.rename(&to, &from).await?;
                disk.sync_dir(&directory).await
            };
            if undone.await.is_err() {
                self.take_offline(&format!(
                    "its directory cannot be synced ({error}); restart the broker"
                ));
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Removes producer snapshots that were taken before, within or right behind these segments: a transaction that was open then may have lost its records here or in an earlier pass, and now
    /// its marker, and would be open for good to who starts from there. Without a snapshot producers are read from the log's start. What the recovery point needs stays.
    async fn remove_snapshots_up_to(&self, end: i64) -> io::Result<()> {
        let doomed: Vec<i64> = {
            let state = self.state.borrow();
            let point = state.recovery_point;
            let gone = |offset: &i64| *offset <= end && *offset < point;
            state.snapshots.iter().copied().filter(gone).collect()
        };
        for offset in doomed {
            let path = self.path().join(file_name(offset, "snapshot"));
            ignore_missing(self.shard.env.disk().remove_file(&path).await)?;
            let mut state = self.state.borrow_mut();
            state.snapshots.retain(|snapshot| *snapshot != offset);
        }
        Ok(())
    }

    fn replace_in_memory(
        &self,
        members: &[SegmentFacts],
        output: SealedOutput<E>,
        has_transaction_file: bool,
    ) {
        let shard = &self.shard;
        let last = members.last().map_or(output.base, |member| member.base);
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        // What the tail still holds of them lies elsewhere now.
        let written = state.written();
        while state
            .tail
            .start()
            .is_some_and(|start| start.segment <= last)
        {
            let freed = state.tail.evict(&shard.pool, written, LetGo::Everything);
            assert!(freed > 0, "a sealed segment is in its file");
            shard.memory_freed(freed);
        }
        let mut closed = 0;
        let mut first_timestamp = None;
        for member in members {
            if let Some(old) = state.segments.remove(&member.base) {
                closed += usize::from(old.file.is_some());
                // What was waited for counts from the oldest record, as long as it is not known to be gone.
                if first_timestamp.is_none() {
                    first_timestamp = old.first_timestamp;
                }
            }
        }
        let entries = output.indexes.entry_counts();
        let segment = Segment {
            size: output.size,
            reserved: output.size,
            written: output.size,
            synced: output.size,
            file: Some(output.file),
            used: shard.tick(),
            first_timestamp,
            max_timestamp: output.indexes.max_timestamp().timestamp,
            indexes: Some(output.indexes),
            sealed: true,
            durable_index_entries: Some(entries),
            has_transaction_file,
            pinned: true,
            ..Segment::new(output.base, &state.config)
        };
        state.segments.insert(output.base, segment);
        self.replacements.set(self.replacements.get() + 1);
        shard.files_closed(closed);
        shard.file_opened();
    }

    /// From that point to the final names. Can be done again after it failed half-way, also by the next start.
    async fn finish_swap(&self, base: i64, others: &[i64]) -> io::Result<()> {
        let directory = self.path();
        let disk = self.shard.env.disk();
        for other in others {
            self.remove_segment_files(*other).await?;
        }
        for kind in SIDE_KINDS {
            let swap = swap_path(&directory, base, kind);
            ignore_missing(disk.rename(&swap, &path(&directory, base, kind)).await)?;
        }
        disk.sync_dir(&directory).await?;
        let swap = swap_path(&directory, base, "log");
        ignore_missing(disk.rename(&swap, &path(&directory, base, "log")).await)?;
        disk.sync_dir(&directory).await
    }

    /// Throws away what a pass has begun to write.
    pub(super) async fn discard_output(&self, base: i64) {
        let _io = self.io.enter().await;
        if self.is_retiring() || self.check_online().is_err() {
            // The directory may be another log's by now; if it is still this one's, the next start clears it.
            return;
        }
        let directory = self.path();
        let disk = self.shard.env.disk();
        for kind in SEGMENT_KINDS {
            for left in [
                cleaned_path(&directory, base, kind),
                swap_path(&directory, base, kind),
            ] {
                if let Err(error) = ignore_missing(disk.remove_file(&left).await) {
                    tracing::warn!(path = %left.display(), "what an unfinished cleaning left stays: {error}");
                }
            }
        }
        if let Err(error) = disk.sync_dir(&directory).await {
            tracing::warn!(path = %directory.display(), "it cannot be synced: {error}");
        }
    }

    /// Goes on with, or undoes, what a crash has left of a cleaning. Returns whether the directory has changed.
    pub(super) async fn settle_swaps(&self, entries: &[DirEntry]) -> Result<bool, String> {
        let directory = self.path();
        let disk = self.shard.env.disk();
        let swap_of = |name: &str, kind: &str| {
            base_offset_of(name.strip_suffix(SWAP_SUFFIX).unwrap_or_default(), kind)
        };
        let committed: BTreeSet<i64> = entries
            .iter()
            .filter_map(|entry| swap_of(&entry.name, "log"))
            .collect();
        let mut changed = false;
        for entry in entries {
            let committed = SIDE_KINDS
                .iter()
                .chain(&["log"])
                .filter_map(|kind| swap_of(&entry.name, kind))
                .any(|base| committed.contains(&base));
            let left = entry.name.ends_with(CLEANED_SUFFIX)
                || entry.name.ends_with(".cleaned.tmp")
                || (entry.name.ends_with(SWAP_SUFFIX) && !committed);
            if left {
                changed = true;
                let removed = disk.remove_file(&directory.join(&entry.name)).await;
                ignore_missing(removed).map_err(|error| error.to_string())?;
            }
        }
        for base in committed {
            changed = true;
            let end = self.end_of_swap(base).await?;
            let others: BTreeSet<i64> = entries
                .iter()
                .flat_map(|entry| SEGMENT_KINDS.map(|kind| base_offset_of(&entry.name, kind)))
                .flatten()
                .filter(|other| *other > base && *other < end)
                .collect();
            tracing::info!(log = %self.topic_partition, segment = base, end, "putting a cleaned segment in place, which the last stop interrupted");
            let others: Vec<i64> = others.into_iter().collect();
            let finished = self.finish_swap(base, &others).await;
            finished.map_err(|error| error.to_string())?;
        }
        if changed {
            let synced = disk.sync_dir(&directory).await;
            synced.map_err(|error| error.to_string())?;
        }
        Ok(changed)
    }

    /// The offset at which a segment ends that is on its way into place.
    async fn end_of_swap(&self, base: i64) -> Result<i64, String> {
        let path = swap_path(&self.path(), base, "log");
        let disk = self.shard.env.disk();
        let file = disk.open(&path, OpenOptions::READ).await;
        let file = file.map_err(|error| error.to_string())?;
        let size = file.len().await.map_err(|error| error.to_string())?;
        let pool = self.shard.pool.clone();
        let mut reader = SegmentReader::<E>::new(file, pool, 1 << 20, base..i64::MAX, size, 0);
        let mut end = base;
        loop {
            match reader.next().await {
                Ok(Some((header, _))) => end = header.next_offset(),
                Ok(None) => return Ok(end),
                Err(failure) => {
                    return Err(format!(
                        "{} is damaged ({failure:?}): restore the log from another copy",
                        path.display()
                    ));
                }
            }
        }
    }
}
