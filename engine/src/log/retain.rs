//! What leaves a log: records before a new start offset, whole segments by retention, the log itself.
//!
//! A new log start offset is durable before anything is removed. Segments go one at a time, renamed first and removed after the delay, so that nobody
//! who appends or reads waits for one.

use std::io;
use std::path::PathBuf;

use super::{Log, LogError, Presence, ReadError};
use crate::disk::{Disk, OpenOptions};
use crate::environment::Environment;
use crate::journal::FileMark;
use crate::log::checkpoint::ignore_missing;
use crate::log::tail::LetGo;
use crate::segment::{SEGMENT_KINDS, Segment, file_name, open_log_file};
use std::rc::Rc;

/// What names a segment file whose removal is due.
pub(crate) const DELETED_SUFFIX: &str = ".deleted";

impl<E: Environment> Log<E> {
    /// Records before `offset` can no longer be read; durable when this returns (DeleteRecords). Returns the log start offset.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] beyond the high watermark; otherwise when the log is offline or its disk refuses.
    pub async fn delete_records_before(&self, offset: i64) -> Result<i64, ReadError> {
        self.check_online()?;
        let high_watermark = self.high_watermark();
        if offset > high_watermark || offset < 0 {
            let log_start_offset = self.log_start_offset();
            return Err(ReadError::OffsetOutOfRange {
                offset,
                log_start_offset,
                limit: high_watermark,
                high_watermark,
                last_stable_offset: self.last_stable_offset(),
            });
        }
        self.raise_log_start(offset).await?;
        self.remove_segments_before_start().await?;
        Ok(self.log_start_offset())
    }

    async fn raise_log_start(&self, offset: i64) -> Result<(), LogError> {
        if offset <= self.log_start_offset() {
            return Ok(());
        }
        self.shard
            .write_log_start(self, offset)
            .await
            .map_err(|error| self.storage_error("moving the log start offset", &error))?;
        let mut state = self.state.borrow_mut();
        state.log_start = state.log_start.max(offset);
        state.epochs.truncate_from_start(offset);
        drop(state);
        // Transactions that were open before it keep nothing back any more.
        self.flush.wake_stable();
        Ok(())
    }

    /// Removes segments that lie wholly before the log start offset and the recovery point.
    async fn remove_segments_before_start(&self) -> Result<(), LogError> {
        loop {
            let _io = self.io.enter().await;
            self.check_online()?;
            let doomed = {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                let mut bases = state.segments.keys();
                let (first, second) = (bases.next().copied(), bases.next().copied());
                match (first, second) {
                    (Some(first), Some(second))
                        if second <= state.log_start && second <= state.recovery_point =>
                    {
                        let segment = state.segments.remove(&first);
                        if segment.is_some_and(|segment| segment.file.is_some()) {
                            self.shard.files_closed(1);
                        }
                        first
                    }
                    _ => return Ok(()),
                }
            };
            self.release_removed(doomed);
            self.retire_segment_files(doomed)
                .await
                .map_err(|error| self.storage_error("removing a segment", &error))?;
        }
    }

    /// Lets go of what the tail still holds of a removed segment.
    fn release_removed(&self, base: i64) {
        let mut state = self.state.borrow_mut();
        let written = state.written();
        while state
            .tail
            .start()
            .is_some_and(|start| start.segment <= base)
        {
            let freed = state.tail.evict(&self.shard.pool, written, LetGo::Chunks);
            if freed == 0 {
                return;
            }
            self.shard.memory_freed(freed);
        }
    }

    async fn retire_segment_files(&self, base: i64) -> io::Result<()> {
        let directory = self.path();
        let disk = self.shard.env.disk();
        let mut renamed = Vec::new();
        for kind in SEGMENT_KINDS {
            let path = directory.join(file_name(base, kind));
            let to = directory.join(format!("{}{DELETED_SUFFIX}", file_name(base, kind)));
            match disk.rename(&path, &to).await {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_files_later(renamed);
        Ok(())
    }

    /// Removes files after the delay.
    pub(super) fn remove_files_later(&self, paths: Vec<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        let shard = self.shard.clone();
        self.shard.env.spawn("removal", async move {
            shard.sleep_or_stop(shard.config.file_delete_delay).await;
            if shard.stopping.get() {
                // The next start finds them by their names.
                return;
            }
            for path in paths {
                if let Err(error) = ignore_missing(shard.env.disk().remove_file(&path).await) {
                    tracing::warn!(path = %path.display(), "a deleted segment's file stays: {error}");
                }
            }
        });
    }

    /// Applies retention by time (when the clock can be believed: `now_ms`) and by size.
    pub(crate) async fn apply_retention(&self, now_ms: Option<i64>) -> Result<(), ReadError> {
        let config = self.config();
        if self.flush.closed().is_some() {
            return Ok(());
        }
        if !config.delete {
            // Only what lies before the log's start, which may have been moved while the policy was another.
            self.remove_segments_before_start().await?;
            return Ok(());
        }
        let mut start = None;
        if config.retention_bytes >= 0 {
            start = self.start_by_size(config.retention_bytes as u64);
        }
        if let Some(now_ms) = now_ms
            && config.retention_ms >= 0
        {
            start = start.max(
                self.start_by_time(now_ms.saturating_sub(config.retention_ms))
                    .await?,
            );
        }
        if let Some(start) = start {
            self.raise_log_start(start).await?;
        }
        self.remove_segments_before_start().await?;
        Ok(())
    }

    fn start_by_size(&self, limit: u64) -> Option<i64> {
        let state = self.state.borrow();
        let mut excess = state
            .segments
            .values()
            .map(|segment| segment.size)
            .sum::<u64>()
            .checked_sub(limit)?;
        let mut start = None;
        for ((_, segment), (next, _)) in state.segments.iter().zip(state.segments.iter().skip(1)) {
            if segment.size > excess || *next > self.high_watermark() {
                break;
            }
            excess -= segment.size;
            start = Some(*next);
        }
        start
    }

    async fn start_by_time(&self, oldest_ms: i64) -> Result<Option<i64>, ReadError> {
        let bases: Vec<i64> = self.state.borrow().segments.keys().copied().collect();
        let mut start = None;
        for (index, &base) in bases.iter().enumerate() {
            let newest = self.max_timestamp_of(base).await?;
            if newest < 0 || newest >= oldest_ms {
                break;
            }
            let next = match bases.get(index + 1) {
                Some(next) => *next,
                // All of it has expired: the active segment makes way for an empty one.
                None => match self
                    .roll_empty(base)
                    .await
                    .map_err(|error| ReadError::Log(self.storage_error("rolling", &error)))?
                {
                    Some(next) => next,
                    None => break,
                },
            };
            if next > self.high_watermark() {
                break;
            }
            start = Some(next);
        }
        Ok(start)
    }

    /// Begins an empty segment at the log's end if `active` still is the active one and holds anything.
    async fn roll_empty(&self, active: i64) -> io::Result<Option<i64>> {
        let _turn = self.appending.enter().await;
        let (next, holds) = {
            let state = self.state.borrow();
            let last = state.segments.last_key_value();
            (
                state.next_offset,
                last.is_some_and(|(base, segment)| *base == active && segment.size > 0),
            )
        };
        if !holds || self.flush.closed().is_some() {
            return Ok(None);
        }
        let file = open_log_file(&self.shard.env, &self.path(), next, OpenOptions::SEGMENT).await?;
        self.shard.env.disk().sync_dir(&self.path()).await?;
        let mut segment = Segment::new(next, &self.config());
        segment.file = Some(file);
        self.shard.file_opened();
        self.state.borrow_mut().segments.insert(next, segment);
        self.shard.segment_rolled(self);
        Ok(Some(next))
    }

    /// The largest timestamp in a segment, from its time index where it is not known.
    pub(super) async fn max_timestamp_of(&self, base: i64) -> Result<i64, ReadError> {
        let known = {
            let state = self.state.borrow();
            let Some(segment) = state.segments.get(&base) else {
                return Ok(-1);
            };
            let unknown = segment.max_timestamp == -1 && segment.size > 0;
            (!unknown && segment.unchecked_newest.is_none()).then_some(segment.max_timestamp)
        };
        if let Some(timestamp) = known {
            return Ok(timestamp);
        }
        self.check_newest(base).await?;
        let mut state = self.state.borrow_mut();
        let Some(segment) = state.segments.get_mut(&base) else {
            return Ok(-1);
        };
        if let Some(indexes) = &segment.indexes {
            segment.max_timestamp = indexes.max_timestamp().timestamp;
        }
        Ok(segment.max_timestamp)
    }

    /// From now on nobody appends; what was appended is still flushed and can be read.
    pub(crate) fn refuse_appends(&self) {
        if self.presence.get() == Presence::Here {
            self.presence.set(Presence::Refusing);
        }
    }

    /// Appends are taken again, unless the journal has been told otherwise.
    pub(crate) fn stay(&self) {
        if self.presence.get() == Presence::Refusing {
            self.presence.set(Presence::Here);
        }
    }

    /// The journal calls the log gone.
    pub(crate) fn leave(&self) {
        self.presence.set(Presence::Leaving);
    }

    /// Whether the log is about to leave, or has.
    pub(crate) fn is_retiring(&self) -> bool {
        self.presence.get() != Presence::Here
    }

    /// Whether it has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.presence.get() == Presence::Gone
    }

    /// Whether the log is neither about to leave nor its shard about to stop.
    pub(super) fn check_staying(&self) -> Result<(), LogError> {
        if self.shard.registry.closing.get() {
            return Err(LogError::stopping(&self.topic_partition));
        }
        if self.is_retiring() {
            return Err(LogError::Deleted(self.topic_partition.to_string()));
        }
        Ok(())
    }

    /// Whether an append or a truncation is under way.
    pub(crate) fn is_changing(&self) -> bool {
        !self.appending.is_free()
    }

    /// The shard has stopped.
    pub(crate) fn close_stopped(&self) {
        self.flush.close(LogError::stopping(&self.topic_partition));
    }

    /// The log is deleted: whoever waits for it is told. What the journal holds of it is needed no longer.
    pub(crate) fn close_deleted(&self) {
        self.presence.set(Presence::Gone);
        self.flush
            .close(LogError::Deleted(self.topic_partition.to_string()));
        // At once: an append of this very log may wait for the room that these files make.
        Self::release_marks(&mut self.state.borrow_mut());
    }

    /// Renames the directory to `<name>.<random>-<suffix>` once nobody works in it any more; `None` when there is none. The name is not durable yet.
    pub(crate) async fn rename_directory(&self, suffix: &str) -> io::Result<Option<PathBuf>> {
        let _turn = self.appending.enter().await;
        let _io = self.io.enter().await;
        if !self.state.borrow().materialized {
            return Ok(None);
        }
        let above = self.shard.config.log_dirs[self.directory].clone();
        let to = above.join(self.shard.retired_name(&self.topic_partition, suffix));
        self.shard.env.disk().rename(&self.path(), &to).await?;
        Ok(Some(to))
    }

    /// Gives back everything the log holds: memory, files, journal files.
    pub(crate) fn let_go(&self) {
        let mut state = self.state.borrow_mut();
        let capacity = state.tail.capacity();
        state.tail.clear();
        state.parked = None;
        self.shard.memory_freed(capacity);
        let open = state
            .segments
            .values()
            .filter(|segment| segment.file.is_some())
            .count();
        self.shard.files_closed(open);
        state.segments.clear();
        Self::release_marks(&mut state);
    }

    /// The log is offline and needs a journal file for its repair.
    pub(crate) fn hold_offline(&self, mark: &Rc<FileMark>) {
        let mut state = self.state.borrow_mut();
        if !state
            .marks
            .back()
            .is_some_and(|(last, _)| Rc::ptr_eq(last, mark))
        {
            mark.pin();
            state.marks.push_back((mark.clone(), i64::MAX));
        }
    }

    /// What the log needed of the journal is in these files now, and no longer in those before.
    pub(crate) fn hold_instead(&self, marks: &[Rc<FileMark>]) {
        let mut state = self.state.borrow_mut();
        Self::release_marks(&mut state);
        drop(state);
        for mark in marks {
            self.hold_offline(mark);
        }
    }

    /// Needs a journal file until the recovery point reaches the log's present end.
    pub(crate) fn hold(&self, mark: &Rc<FileMark>) {
        mark.pin();
        let mut state = self.state.borrow_mut();
        let end = state.next_offset;
        state.marks.push_back((mark.clone(), end));
        // Below the end it would look as if nothing had to be done.
        state.recovery_point = state.recovery_point.min(end);
    }
}
