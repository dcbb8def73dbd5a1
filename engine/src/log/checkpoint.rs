//! Checkpointing one log: everything up to an offset written, synced and described by durable files, so that its recovery point may move there.
//!
//! Order: batches synced, then indexes, epochs and the producer snapshot durable. The shard then writes the recovery points of many logs in one file, and only after that
//! are the log's journal files let go ([`Log::recovery_point_durable`]).

use std::io;
use std::rc::Rc;

use super::background::{WriteBehind, WroteBehind};
use super::{Log, LogState};
use crate::checkpoint::{LEADER_EPOCH_FILE, format_epochs};
use crate::disk::{Disk, DiskFile};
use crate::engine::ballast::may_pass;
use crate::environment::Environment;
use crate::epochs::LeaderEpochs;
use crate::journal::FileMark;
use crate::segment::{EncodedIndexes, SEGMENT_KINDS, file_name, write_indexes};

/// How far a log has been written and synced, as long as it is not truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpointed {
    /// Everything before is.
    pub offset: i64,
    truncations: u64,
}

impl<E: Environment> Log<E> {
    /// Whether the recovery point may be what a checkpoint found: not after a truncation, nor once the log is offline.
    pub(crate) fn may_move_recovery_point(&self, checkpointed: &Checkpointed) -> bool {
        self.flush.closed().is_none() && self.flush.truncations() == checkpointed.truncations
    }

    /// The oldest journal file the log needs, as a number to sort by.
    pub(crate) fn oldest_mark(&self) -> u64 {
        self.state
            .borrow()
            .marks
            .front()
            .map_or(u64::MAX, |(mark, _)| mark.born())
    }

    /// The oldest journal file the log needs.
    pub(crate) fn first_mark(&self) -> Option<Rc<FileMark>> {
        self.state
            .borrow()
            .marks
            .front()
            .map(|(mark, _)| mark.clone())
    }

    /// Whether journal files are held for this log, or its recovery point lags behind.
    pub(crate) fn needs_checkpoint(&self) -> bool {
        let state = self.state.borrow();
        !state.marks.is_empty() || state.recovery_point < state.next_offset
    }

    /// Whether anything in memory is not in the segment files yet. What is parked is not in memory.
    pub(crate) fn has_unwritten(&self) -> bool {
        let state = self.state.borrow();
        state.written() < state.parked_from().unwrap_or(state.end())
    }

    /// When the coldest chunk that could be let go was used; `None` when there is none.
    pub(crate) fn evictable_since(&self) -> Option<u64> {
        let state = self.state.borrow();
        (state.tail.capacity() > 0).then(|| {
            let active = state.segments.last_key_value();
            active.map_or(0, |(_, segment)| segment.used)
        })
    }

    /// Writes and syncs everything appended so far; returns the offset that the recovery point may move to, or `None` when the log is offline or its
    /// files have to wait for space or descriptors. With `seal`, the active segment gets its exact size and complete indexes too: a clean stop.
    pub(crate) async fn checkpoint(&self, seal: bool) -> Option<Checkpointed> {
        if let Err(error) = self.settle().await {
            let error = error.into_io();
            if may_pass(&error) {
                // Whoever waits for room in the journal has to be told.
                self.shard.note_shortage(&error);
            } else if self.check_online().is_ok() {
                tracing::warn!(log = %self.topic_partition, "its checkpoint has to wait: {error}");
            }
            return None;
        }
        // Most of it without the turn, which appends may need.
        let (next_offset, end) = {
            let state = self.state.borrow();
            (state.next_offset, state.end())
        };
        self.flushed(next_offset).await.ok()?;
        if self.write_behind(WriteBehind::Before(end)).await != WroteBehind::All {
            return None;
        }
        let _io = self.io.enter().await;
        let truncations = self.flush.truncations();
        // The snapshot must be of exactly the offset it is named after: taken now, valid when everything before is flushed. A truncation
        // cannot come in between, it needs the turn.
        let (target, end, snapshot, epochs) = {
            let state = self.state.borrow();
            let snapshot = (!state.producers.is_empty())
                .then(|| state.producers.encode_snapshot(self.now_ms()));
            (
                state.next_offset,
                state.end(),
                snapshot,
                state.epochs.clone(),
            )
        };
        self.flushed(target).await.ok()?;
        // Whoever goes on appending meanwhile is not chased: that would not end, and hold the turn.
        if self.write_behind_in_turn(WriteBehind::Before(end)).await != WroteBehind::All {
            return None;
        }
        let done = async {
            self.sync_segments(seal).await?;
            if self.state.borrow().materialized {
                self.write_epochs(&epochs).await?;
                self.write_snapshot(target, snapshot).await?;
            }
            io::Result::Ok(())
        };
        match done.await {
            Ok(()) => Some(Checkpointed {
                offset: target,
                truncations,
            }),
            Err(error) if may_pass(&error) => {
                // What was synced is; the rest is tried again.
                self.shard.note_shortage(&error);
                None
            }
            Err(error) => {
                self.take_offline(&format!(
                    "syncing its files failed ({error}); everything acknowledged is safe in the journal: repair the disk and restart the broker"
                ));
                None
            }
        }
    }

    async fn sync_segments(&self, seal: bool) -> io::Result<()> {
        let bases: Vec<i64> = {
            let state = self.state.borrow();
            state
                .segments
                .iter()
                .filter(|(_, segment)| !segment.sealed)
                .map(|(base, _)| *base)
                .collect()
        };
        for base in bases {
            self.sync_segment(base, seal).await?;
        }
        Ok(())
    }

    async fn sync_segment(&self, base: i64, seal: bool) -> io::Result<()> {
        let (written, complete, synced) = {
            let state = self.state.borrow();
            let Some(segment) = state.segments.get(&base) else {
                return Ok(());
            };
            let rolled = state
                .segments
                .last_key_value()
                .is_some_and(|(last, _)| *last != base);
            (
                segment.written,
                (rolled || seal) && segment.written == segment.size,
                segment.synced,
            )
        };
        if written == synced && !complete {
            return Ok(());
        }
        let file = self.open_segment(base).await?;
        if complete {
            file.set_len(written).await?;
        }
        // Whatever a failed sync says, what it left on the medium is unknown: not an error that passes.
        file.sync_data()
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        let encoded = {
            let mut state = self.state.borrow_mut();
            let Some(segment) = state.segments.get_mut(&base) else {
                return Ok(());
            };
            if complete {
                segment.reserved = written;
            }
            match &mut segment.indexes {
                Some(indexes) => {
                    if complete {
                        indexes.seal().map_err(io::Error::other)?;
                    }
                    let entries = indexes.entry_counts();
                    (complete || segment.durable_index_entries != Some(entries)).then(|| {
                        let older = segment.has_transaction_file;
                        (entries, EncodedIndexes::of(indexes, older))
                    })
                }
                None => None,
            }
        };
        if let Some((entries, encoded)) = encoded {
            let directory = self.path();
            let write = || write_indexes(&self.shard.env, &directory, base, &encoded);
            self.shard.write_for_sure(self.directory, write).await?;
            if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
                segment.durable_index_entries = Some(entries);
                segment.has_transaction_file |= encoded.has_transactions();
            }
        }
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.synced = written;
            segment.sealed |= complete;
        }
        if complete {
            // Its indexes can be read back from now on, and count as those that were.
            self.shard.indexes_loaded(self, base);
        }
        Ok(())
    }

    pub(super) async fn write_epochs(&self, epochs: &LeaderEpochs) -> io::Result<()> {
        if self.state.borrow().durable_epochs == epochs.entries() {
            return Ok(());
        }
        let path = self.path().join(LEADER_EPOCH_FILE);
        let text = format_epochs(epochs);
        let disk = self.shard.env.disk();
        let write = || disk.write_atomic(&path, text.as_bytes());
        self.shard.write_for_sure(self.directory, write).await?;
        self.state.borrow_mut().durable_epochs = epochs.entries().to_vec();
        Ok(())
    }

    pub(super) async fn write_snapshot(
        &self,
        offset: i64,
        snapshot: Option<Vec<u8>>,
    ) -> io::Result<()> {
        let Some(bytes) = snapshot else { return Ok(()) };
        if self.state.borrow().snapshots.last() == Some(&offset) {
            return Ok(());
        }
        let path = self.path().join(file_name(offset, "snapshot"));
        let disk = self.shard.env.disk();
        let write = || disk.write_atomic(&path, &bytes);
        self.shard.write_for_sure(self.directory, write).await?;
        let mut state = self.state.borrow_mut();
        state.snapshots.push(offset);
        Ok(())
    }

    /// Removes producer snapshots that no recovery or truncation can ask for: all before the recovery point that are not a segment's beginning.
    pub(crate) async fn remove_old_snapshots(&self) {
        let _io = self.io.enter().await;
        if self.check_online().is_err() {
            // The directory may be another log's by now.
            return;
        }
        let old: Vec<i64> = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let (point, segments) = (state.recovery_point, &state.segments);
            let keep = |offset: &i64| *offset >= point || segments.contains_key(offset);
            let old = state
                .snapshots
                .iter()
                .copied()
                .filter(|offset| !keep(offset))
                .collect();
            state.snapshots.retain(keep);
            old
        };
        for offset in old {
            let path = self.path().join(file_name(offset, "snapshot"));
            if let Err(error) = ignore_missing(self.shard.env.disk().remove_file(&path).await) {
                tracing::warn!(log = %self.topic_partition, "an old snapshot stays: {error}");
            }
        }
    }

    /// The recovery point is durable: journal files that held only what lies before it are no longer needed for this log.
    pub(crate) fn recovery_point_durable(&self, offset: i64) {
        let mut state = self.state.borrow_mut();
        state.recovery_point = state.recovery_point.max(offset);
        while let Some((mark, needed_to)) = state.marks.front()
            && *needed_to <= offset
        {
            mark.unpin();
            state.marks.pop_front();
        }
    }

    /// Lets go of all journal files.
    pub(crate) fn release_marks(state: &mut LogState<E>) {
        for (mark, _) in state.marks.drain(..) {
            mark.unpin();
        }
    }

    /// Removes the files of a segment; those that are not there are fine.
    pub(crate) async fn remove_segment_files(&self, base: i64) -> io::Result<()> {
        let directory = self.path();
        for kind in SEGMENT_KINDS {
            ignore_missing(
                self.shard
                    .env
                    .disk()
                    .remove_file(&directory.join(file_name(base, kind)))
                    .await,
            )?;
        }
        Ok(())
    }
}

/// A file that is to go and is not there is as good as gone.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    //! The indexes of segments that have rolled count against the limit, as those that were read back do.
    use std::time::Duration;

    use crate::config::{EngineConfig, LogConfig};
    use crate::environment::Environment;
    use crate::log::testing::{busy, fill, with_log};

    #[test]
    fn indexes_of_rolled_segments_are_let_go() {
        let config = EngineConfig {
            loaded_index_bytes_max: 0,
            ..busy()
        };
        let log_config = LogConfig {
            segment_bytes: 4 << 10,
            ..LogConfig::default()
        };
        with_log(6, config, log_config, |env, log| async move {
            fill(&log, 60, 500).await;
            env.sleep(Duration::from_millis(500)).await;
            let state = log.state.borrow();
            let sealed = state.segments.values().filter(|segment| segment.sealed);
            assert!(sealed.clone().count() > 5);
            let held = sealed.filter(|segment| segment.indexes.is_some());
            assert!(held.count() <= 1);
        });
    }
}
