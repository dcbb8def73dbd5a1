//! Truncation: the log ends earlier from now on, durably, with indexes, epochs and producer state as they were there.
//!
//! The journal says so first; then the recovery point is lowered, the files are cut, and memory follows. A crash in between leads to the same end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::flush::Place;
use super::{Log, LogError, ReadError};
use crate::disk::{Disk, DiskFile};
use crate::engine::ballast::may_pass;
use crate::environment::Environment;
use crate::journal::FileMark;
use crate::journal::entry::Item;

/// How long space or descriptors that are missing are waited for before another try.
const PATIENCE: Duration = Duration::from_secs(1);

/// What kept a truncation from its end.
struct CutFailure {
    error: io::Error,
    /// It is for want of space or descriptors.
    may_pass: bool,
}

impl From<io::Error> for CutFailure {
    fn from(error: io::Error) -> Self {
        let may_pass = may_pass(&error);
        Self { error, may_pass }
    }
}

impl From<ReadError> for CutFailure {
    fn from(error: ReadError) -> Self {
        let may_pass = error.may_pass().is_some();
        Self {
            error: error.into_io(),
            may_pass,
        }
    }
}

/// A truncation that the journal speaks of and that the log has not gone through yet. Given up there, the log must not go on as it was: it goes offline, and holds the
/// journal file from which the next start finishes it.
struct Unfinished<'a, E: Environment> {
    log: &'a Log<E>,
    mark: Option<Rc<FileMark>>,
}

impl<E: Environment> Drop for Unfinished<'_, E> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.log.take_offline(
                "its truncation was given up half-way; restart the broker to finish it from the journal",
            );
            self.log.hold_offline(&mark);
            mark.unpin();
        }
    }
}

impl<E: Environment> Log<E> {
    /// Cuts off the batch that contains `offset` and everything after it; durable when this returns. Returns the log's new end, which is at most `offset`.
    ///
    /// # Errors
    /// When the log is or goes offline.
    pub async fn truncate_to(&self, offset: i64) -> Result<i64, LogError> {
        let _turn = self.appending.enter().await;
        self.check_online()?;
        self.check_staying()?;
        // As long as this is held, a place found in a segment still is that place when it is cut there. Only segments that are just taking the place of others are waited for.
        let _replacing = self.replacing.enter().await;
        let end = self.log_end_offset();
        if offset >= end {
            return Ok(end);
        }
        self.flushed(end).await?;
        let found = match self.settle().await {
            Ok(()) => self.find_cut(offset).await,
            Err(error) => Err(error),
        };
        let (cut, end) = match found {
            Ok(found) => found,
            Err(ReadError::Log(error)) => return Err(error),
            Err(other) => {
                self.take_offline(&other.to_string());
                return Err(self.storage_error("truncating", &io::Error::other(other.to_string())));
            }
        };
        // Before the turn on the files: a checkpoint may need that to make room in the journal.
        let item = Item::Truncate {
            topic_id: self.topic_id,
            partition: self.topic_partition.partition,
            offset: end,
        };
        let journal = self.shard.journal();
        let refused = |reason: Arc<str>| {
            let error = io::Error::other(&*reason);
            self.storage_error("truncating", &error)
        };
        let (sequence, mark) = journal.say(&item).await.map_err(refused)?;
        self.note_truncation(end, sequence);
        let mut unfinished = Unfinished {
            log: self,
            mark: Some(mark),
        };
        journal.completed(sequence).await.map_err(refused)?;
        let _io = self.io.enter().await;
        if let Err(error) = self.cut(cut, end).await {
            self.take_offline(&format!("truncating its files failed ({error}); restart the broker to finish it from the journal"));
            return Err(self.storage_error("truncating", &error));
        }
        if let Some(mark) = unfinished.mark.take() {
            mark.unpin();
        }
        Ok(end)
    }

    /// Where the batch that contains `offset` begins, and the offset at which the log then ends.
    async fn find_cut(&self, offset: i64) -> Result<(Place, i64), ReadError> {
        let base = match self.state.borrow().segments.range(..=offset).next_back() {
            Some((base, _)) => *base,
            None => {
                return Ok((
                    Place {
                        segment: offset,
                        position: 0,
                    },
                    offset,
                ));
            }
        };
        let mut position = self.position_hint(base, offset - 1).await?;
        let mut cut = (position, base);
        let mut found = false;
        loop {
            let next = self
                .walk(base, position, |header, at| {
                    if !found && header.last_offset() < offset {
                        cut = (at + header.size() as u64, header.next_offset());
                    } else {
                        found = true;
                    }
                    Ok(())
                })
                .await?;
            if found || next == position {
                break;
            }
            position = next;
        }
        if cut.1 == base && cut.0 > 0 {
            // The hint led past the offset: begin at the segment's start.
            return Err(self.corrupt(offset, "the offset index does not lead to the batch".into()));
        }
        Ok((
            Place {
                segment: base,
                position: cut.0,
            },
            cut.1,
        ))
    }

    /// Cuts. Space or descriptors that are missing are waited for: the journal has said that the log ends here, so it cannot go on as it was.
    async fn cut(&self, cut: Place, end: i64) -> io::Result<()> {
        let lower = async || Ok(self.shard.lower_offsets(self, end).await?);
        self.patiently(lower).await?;
        let (removed, shortened) = {
            let _indexing = self.indexing.enter().await;
            self.cut_memory(cut, end)
        };
        let shortened = shortened.then_some(cut);
        self.patiently(async || self.cut_files(&removed, shortened, end).await)
            .await
    }

    async fn patiently(&self, step: impl AsyncFn() -> Result<(), CutFailure>) -> io::Result<()> {
        let mut told = false;
        loop {
            let Err(failure) = step().await else {
                return Ok(());
            };
            if !failure.may_pass || self.shard.stopping.get() || self.is_retiring() {
                return Err(failure.error);
            }
            if !told {
                let error = &failure.error;
                tracing::warn!(log = %self.topic_partition, "its truncation has to wait for space or descriptors: {error}");
                told = true;
            }
            self.shard.sleep_or_stop(PATIENCE).await;
        }
    }

    /// In memory: the segments that go altogether, and whether the last one that stays has to be cut.
    fn cut_memory(&self, cut: Place, end: i64) -> (Vec<i64>, bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut removed = state.segments.split_off(&(cut.segment + 1));
        if cut.segment == end
            && cut.position == 0
            && let Some(whole) = state.segments.remove(&cut.segment)
        {
            removed.insert(cut.segment, whole);
        }
        let open = removed
            .values()
            .filter(|segment| segment.file.is_some())
            .count();
        self.shard.files_closed(open);
        let mut shortened = false;
        if let Some(segment) = state.segments.get_mut(&cut.segment) {
            shortened = segment.written > cut.position || segment.sealed;
            segment.size = cut.position;
            segment.written = segment.written.min(cut.position);
            segment.synced = segment.synced.min(cut.position);
            segment.sealed = false;
            segment.lowest_aborted = None;
            segment.durable_index_entries = None;
        }
        let before = state.tail.capacity();
        if state.tail.holds(cut) {
            state.tail.truncate(&self.shard.pool, cut);
        } else {
            state.tail.clear();
        }
        let after = state.tail.capacity();
        self.shard.memory_freed(before.saturating_sub(after));
        self.shard.memory_taken(after.saturating_sub(before));
        for (_, needed_to) in &mut state.marks {
            *needed_to = end.min(*needed_to);
        }
        state.next_offset = end;
        state.recovery_point = state.recovery_point.min(end);
        state.log_start = state.log_start.min(end);
        state.epochs.truncate_from_end(end);
        state.leader_epoch = state.epochs.latest_epoch().unwrap_or(state.leader_epoch);
        let (place, log_start) = (state.end(), state.log_start);
        // A transaction whose marker goes is open again, which one is known once the producers are read back.
        self.flush.unstable.borrow_mut().hold(log_start);
        self.flush.truncate(end, place);
        (removed.into_keys().collect(), shortened)
    }

    /// On disk, and what is read back from there. Can be done again after it failed half-way.
    async fn cut_files(
        &self,
        removed: &[i64],
        shortened: Option<Place>,
        end: i64,
    ) -> Result<(), CutFailure> {
        for base in removed {
            self.remove_segment_files(*base).await?;
        }
        if let Some(cut) = shortened {
            let file = self.open_segment(cut.segment).await?;
            file.set_len(cut.position).await?;
            if let Some(segment) = self.state.borrow_mut().segments.get_mut(&cut.segment) {
                segment.reserved = cut.position;
            }
        }
        self.remove_later_snapshots(end).await?;
        if self.state.borrow().materialized {
            self.shard.env.disk().sync_dir(&self.path()).await?;
        }
        self.trim_indexes(end).await?;
        self.restore_producers(end, false).await?;
        // The recovery point is here now, and the next start asks for the snapshot of exactly this offset.
        let snapshot = {
            let state = self.state.borrow();
            (!state.producers.is_empty()).then(|| state.producers.encode_snapshot(self.now_ms()))
        };
        Ok(self.write_snapshot(end, snapshot).await?)
    }
}
