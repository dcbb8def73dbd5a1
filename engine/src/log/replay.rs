//! Opening a log that is on disk: exactly as it was left after a clean stop, or from the recovery point and the journal after a crash.
//!
//! Before the recovery point everything must be as it was synced: what is not is reported and takes the log offline, nothing is cut away. From the recovery point on the
//! journal is the truth: what the files hold there is overwritten, and what the journal holds returns to the tail as dirty.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use super::flush::Place;
use super::retain::DELETED_SUFFIX;
use super::tail::CHUNK_BYTES_MIN;
use super::{Log, LogState, ReadError, ignore_missing};
use crate::batch::{BatchHeader, EndTransactionMarker, HEADER_BYTES};
use crate::checkpoint::{LEADER_EPOCH_FILE, parse_epochs};
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::environment::Environment;
use crate::journal::FileMark;
use crate::memory::BLOCK_BYTES;
use crate::producer_state::ProducerEvent;
use crate::segment::{Segment, base_offset_of, file_name, open_log_file, path};

/// What recovery knows about a log before it looks at the log's files.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenPlan {
    /// As the recovery-point checkpoint has it.
    pub recovery_point: Option<i64>,
    /// As the log-start-offset checkpoint has it.
    pub log_start: Option<i64>,
    /// Where the journal truncated the log, at the lowest.
    pub truncated_to: Option<i64>,
    /// Base offset of the first batch in the journal that is still part of the log.
    pub first_in_journal: Option<i64>,
    /// Base offsets of the segments that the journal's items go to.
    pub segments: BTreeSet<i64>,
    /// The last start was ended by a clean stop.
    pub clean: bool,
}

impl<E: Environment> Log<E> {
    /// Opens the log from its directory. An error says why the log has to stay offline.
    pub(crate) async fn open_from_disk(&self, plan: &OpenPlan) -> Result<(), String> {
        self.state.borrow_mut().materialized = true;
        let directory = self.path();
        let entries = self
            .shard
            .env
            .disk()
            .list(&directory)
            .await
            .map_err(|error| error.to_string())?;
        let entries = if self.settle_swaps(&entries).await? {
            let listed = self.shard.env.disk().list(&directory).await;
            listed.map_err(|error| error.to_string())?
        } else {
            entries
        };
        let mut bases = Vec::new();
        let mut snapshots = Vec::new();
        let mut transactions = BTreeSet::new();
        for entry in &entries {
            if let Some(base) = base_offset_of(&entry.name, "log") {
                bases.push((base, entry.len));
            } else if let Some(offset) = base_offset_of(&entry.name, "snapshot") {
                snapshots.push(offset);
            } else if let Some(base) = base_offset_of(&entry.name, "txnindex") {
                transactions.insert(base);
            }
        }
        let doomed: Vec<_> = entries
            .iter()
            .filter(|entry| entry.name.ends_with(DELETED_SUFFIX))
            .map(|entry| directory.join(&entry.name))
            .collect();
        self.remove_files_later(doomed);
        bases.sort_unstable();
        snapshots.sort_unstable();
        let has_epochs = entries.iter().any(|entry| entry.name == LEADER_EPOCH_FILE);
        if has_epochs {
            let raw = self
                .shard
                .env
                .disk()
                .read_small(&directory.join(LEADER_EPOCH_FILE))
                .await
                .map_err(|error| error.to_string())?;
            let epochs =
                parse_epochs(&raw).map_err(|error| format!("{LEADER_EPOCH_FILE}: {error}"))?;
            let mut state = self.state.borrow_mut();
            state.leader_epoch = epochs.latest_epoch().unwrap_or(-1);
            state.durable_epochs = epochs.entries().to_vec();
            state.epochs = epochs;
        }
        {
            let mut state = self.state.borrow_mut();
            state.snapshots = snapshots;
            for (base, len) in &bases {
                let mut segment = Segment::new(*base, &state.config);
                segment.indexes = None;
                (
                    segment.size,
                    segment.written,
                    segment.synced,
                    segment.reserved,
                ) = (*len, *len, *len, *len);
                segment.sealed = true;
                segment.has_transaction_file = transactions.remove(base);
                state.segments.insert(*base, segment);
            }
        }
        for base in transactions {
            // Its segment was removed: another may come to begin there.
            let stray = path(&directory, base, "txnindex");
            let removed = ignore_missing(self.shard.env.disk().remove_file(&stray).await);
            removed.map_err(|error| error.to_string())?;
        }
        // Without a recovery point nothing was ever checkpointed: the log is what the journal holds of it.
        let recorded = plan
            .recovery_point
            .or(plan.first_in_journal)
            .or(plan.truncated_to);
        let point = match (recorded, plan.truncated_to) {
            (Some(point), Some(truncated)) => Some(point.min(truncated)),
            (point, _) => point,
        };
        // What was truncated to has itself been removed since: the journal holds everything after it, the log begins with its first segment.
        let first = bases.first().map(|(base, _)| *base);
        let removed = first.filter(|first| plan.log_start.is_some_and(|start| start >= *first));
        let point = point.map(|point| removed.map_or(point, |first| point.max(first)));
        if let Some(point) = point {
            self.remove_segments_never_begun(point, plan)
                .await
                .map_err(|error| error.to_string())?;
        }
        let end = match point {
            Some(point) if plan.clean => Ok(point),
            Some(point) => self.find_end(point, plan).await,
            None => self.find_unknown_end(plan).await,
        }?;
        let first = self
            .state
            .borrow()
            .segments
            .first_key_value()
            .map_or(end, |(base, _)| *base);
        let log_start = plan.log_start.unwrap_or(first).max(first);
        self.settle_at(end, log_start);
        if !plan.clean {
            self.trim_indexes(end)
                .await
                .map_err(|error| error.to_string())?;
        }
        if !plan.clean {
            self.remove_later_snapshots(end)
                .await
                .map_err(|error| error.to_string())?;
        }
        let exact = recorded == Some(end) && plan.truncated_to.is_none();
        self.restore_producers(end, exact)
            .await
            .map_err(|error| error.to_string())?;
        self.state.borrow_mut().epochs.truncate_from_end(end);
        Ok(())
    }

    /// Removes files of segments that a roll made and then gave up, on a full disk for instance, before the log went on in the segment before: empty, although what has their
    /// offset was synced before `point`.
    async fn remove_segments_never_begun(&self, point: i64, plan: &OpenPlan) -> io::Result<()> {
        let never_begun: Vec<i64> = {
            let mut state = self.state.borrow_mut();
            let before = state.segments.range(..point);
            let bases: Vec<i64> = before
                .filter(|(base, segment)| segment.size == 0 && !plan.segments.contains(base))
                .map(|(base, _)| *base)
                .collect();
            state.segments.retain(|base, _| !bases.contains(base));
            bases
        };
        for base in never_begun {
            tracing::info!(log = %self.topic_partition, segment = base, "removing the file of a segment that was never begun");
            self.remove_segment_files(base).await?;
        }
        Ok(())
    }

    /// The log ends at `end` for now: everything before is in the files.
    fn settle_at(&self, end: i64, log_start: i64) {
        let mut state = self.state.borrow_mut();
        state.next_offset = end;
        state.recovery_point = end;
        state.log_start = log_start;
        let place = state.end();
        drop(state);
        self.flush.truncate(end, place);
        self.flush.advance(end, place);
    }

    /// Everything that the journal holds of the log is back.
    pub(crate) fn finish_opening(&self) {
        let mut state = self.state.borrow_mut();
        state.log_start = state.log_start.min(state.next_offset);
        let start = state.log_start;
        state.epochs.truncate_from_start(start);
    }

    /// Makes the last segment's indexes those of what is before `end`: what they know beyond is of another time.
    pub(super) async fn trim_indexes(&self, end: i64) -> Result<(), ReadError> {
        let last = self
            .state
            .borrow()
            .segments
            .last_key_value()
            .map(|(base, segment)| (*base, segment.size));
        let Some((base, size)) = last else {
            return Ok(());
        };
        if size == 0 {
            let mut state = self.state.borrow_mut();
            let config = state.config.clone();
            let before = state.segments.get(&base);
            let has_transaction_file = before.is_some_and(|segment| segment.has_transaction_file);
            state.segments.insert(
                base,
                Segment {
                    file: None,
                    has_transaction_file,
                    ..Segment::new(base, &config)
                },
            );
            return Ok(());
        }
        // So that no entry is taken for true that leads elsewhere.
        self.position_hint(base, end - 1).await?;
        let from = match self.state.borrow_mut().segments.get_mut(&base) {
            Some(segment) => {
                let unchecked = segment.unchecked_newest.take().is_some();
                let Some(indexes) = &mut segment.indexes else {
                    return Ok(());
                };
                let from = indexes.truncate_to(end);
                if unchecked && !indexes.times.is_empty() {
                    segment.unchecked_newest = Some(indexes.times.last());
                }
                from
            }
            None => return Ok(()),
        };
        self.feed_indexes(base, u64::from(from)).await?;
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base)
            && let Some(indexes) = &segment.indexes
        {
            // What was cut away may have been newer.
            segment.max_timestamp = indexes.max_timestamp().timestamp;
        }
        Ok(())
    }

    /// Removes snapshots of what lies beyond `end`, durably: other records will take those offsets.
    pub(super) async fn remove_later_snapshots(&self, end: i64) -> io::Result<()> {
        let later: Vec<i64> = {
            let state = self.state.borrow();
            let snapshots = state.snapshots.iter().copied();
            snapshots.filter(|offset| *offset > end).collect()
        };
        let directory = self.path();
        let disk = self.shard.env.disk();
        for offset in &later {
            let path = directory.join(file_name(*offset, "snapshot"));
            ignore_missing(disk.remove_file(&path).await)?;
        }
        if !later.is_empty() {
            disk.sync_dir(&directory).await?;
        }
        let mut state = self.state.borrow_mut();
        state.snapshots.retain(|offset| *offset <= end);
        Ok(())
    }

    /// Finds the log's end where a batch from the journal is to go, or begins the segment there; an error says why the log has to stay offline.
    pub(super) async fn find_place(&self, at: Place, header: &BatchHeader) -> Result<(), String> {
        let end = self.state.borrow().end();
        let next_offset = self.log_end_offset();
        if header.base_offset < next_offset {
            return Err(format!(
                "the journal goes back from offset {next_offset} to {}",
                header.base_offset
            ));
        }
        if at == end && !self.state.borrow().segments.is_empty() {
            return Ok(());
        }
        let new_segment = at.position == 0
            && (at.segment > end.segment
                || self.state.borrow().segments.is_empty()
                || end.position == 0);
        if !new_segment {
            return Err(format!(
                "the journal's batch at offset {} belongs to position {} of segment {}, but the log ends at position {} of segment {}; restore the log from another copy",
                header.base_offset, at.position, at.segment, end.position, end.segment
            ));
        }
        self.begin_replayed_segment(at.segment)
            .await
            .map_err(|error| error.to_string())
    }

    /// Puts a batch from the journal back where it belongs, as dirty; an error says why the log has to stay offline.
    pub(crate) async fn replay(
        &self,
        at: Place,
        batch: &[&[u8]],
        header: &BatchHeader,
        mark: &Rc<FileMark>,
    ) -> Result<(), String> {
        let event = event_of(batch, header)?;
        self.find_place(at, header).await?;
        let length = header.size();
        // Held until the batch is in: nobody else takes what was freed for it.
        let mut memory = None;
        loop {
            self.warm_up().await.map_err(|error| error.to_string())?;
            if self.must_reserve(&self.state.borrow(), length) {
                self.prepare_segment(header, length)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            // Closed meanwhile, it may have lost its tail to others, unwritten: no file gives back what would make it warm.
            self.check_online().map_err(|error| error.to_string())?;
            let growth = {
                let mut state = self.state.borrow_mut();
                state.tail.set_chunk_bytes_max(self.shard.chunk_bytes_max());
                let cold = self.is_cold(&state);
                (!cold).then(|| state.tail.growth_for(at, length))
            };
            match growth {
                Some(growth)
                    if !self.shard.has_memory(growth)
                        && self.shard.tail_bytes() > CHUNK_BYTES_MIN as u64 =>
                {
                    drop(memory.take());
                    let turn = self.shard.wait_for_memory(growth, self);
                    memory = Some(
                        self.while_open(turn)
                            .await
                            .map_err(|error| error.to_string())?,
                    );
                }
                Some(_) => break,
                // Its last block was let go meanwhile.
                None => {}
            }
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let before = state.tail.capacity();
        state.tail.append(&self.shard.pool, at, &[], batch);
        self.shard.memory_taken(state.tail.capacity() - before);
        self.note_batch(state, header, at.position, event.as_ref(), self.now_ms());
        self.note_replayed(state, mark);
        if state.dirty_since.is_none() {
            state.dirty_since = Some(self.shard.env.now());
            self.shard.became_dirty(self);
        }
        Ok(())
    }

    /// The log ends with a batch of the journal file of this mark, all of it on the medium.
    pub(super) fn note_replayed(&self, state: &mut LogState<E>, mark: &Rc<FileMark>) {
        let end = state.end();
        match state.marks.back_mut() {
            Some((last, needed_to)) if Rc::ptr_eq(last, mark) => *needed_to = state.next_offset,
            _ => {
                mark.pin();
                state.marks.push_back((mark.clone(), state.next_offset));
            }
        }
        self.flush.advance(state.next_offset, end);
    }

    async fn begin_replayed_segment(&self, base: i64) -> io::Result<()> {
        let directory = self.path();
        let file = open_log_file(&self.shard.env, &directory, base, OpenOptions::SEGMENT).await?;
        self.shard.env.disk().sync_dir(&directory).await?;
        let reserved = file.len().await?;
        let mut segment = Segment::new(base, &self.config());
        let transactions = path(&directory, base, "txnindex");
        segment.has_transaction_file = self.shard.env.disk().exists(&transactions).await?;
        segment.reserved = reserved;
        segment.file = Some(file);
        self.shard.file_opened();
        let mut state = self.state.borrow_mut();
        if let Some((&last, _)) = state.segments.last_key_value()
            && state.segments[&last].size == 0
        {
            state.segments.remove(&last);
        }
        state.segments.insert(base, segment);
        drop(state);
        self.shard.segment_rolled(self);
        Ok(())
    }

    /// Makes the active segment ready for appending after it was opened: its indexes, the time of its first batch, and the bytes of its last, partial block.
    pub(super) async fn warm_up(&self) -> Result<(), ReadError> {
        self.settle().await?;
        let (base, end, cold) = {
            let state = self.state.borrow();
            let Some((&base, segment)) = state.segments.last_key_value() else {
                return Ok(());
            };
            (base, state.end(), self.is_cold(&state) && segment.size > 0)
        };
        if !cold {
            return Ok(());
        }
        self.load_indexes(base).await?;
        let known = |state: &LogState<E>| state.segments.get(&base)?.first_timestamp;
        let first = known(&self.state.borrow());
        if first.is_none() && self.first_timestamp_of(base).await?.is_none() {
            let reason = format!("no batch at the beginning of segment {base}");
            return Err(self.corrupt(base, reason));
        }
        let aligned = end.position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let prefix = self
            .read_file(base, aligned, BLOCK_BYTES, end.position)
            .await?;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.end() != end {
            return Ok(());
        }
        if let Some(segment) = state.segments.get_mut(&base) {
            segment.sealed = false;
            // Others may be aborted in it from now on.
            segment.lowest_aborted = None;
            if let Some(indexes) = &segment.indexes {
                // Before a batch comes in: from then on the largest time counts as known.
                let newest = indexes.max_timestamp().timestamp;
                segment.max_timestamp = segment.max_timestamp.max(newest);
            }
        }
        if end.position > aligned && state.tail.start().is_none() {
            let ragged = (end.position - aligned) as usize;
            if prefix.len() < ragged {
                // It would be read again and again by who waits for the log to be warm, and appended to as if it were whole.
                return Err(ReadError::Corrupt {
                    log: self.topic_partition.to_string(),
                    offset: state.next_offset,
                    reason: format!(
                        "the file of segment {base} ends before position {}",
                        end.position
                    ),
                });
            }
            let before = state.tail.capacity();
            let at = Place {
                position: aligned,
                ..end
            };
            state.tail.append(&self.shard.pool, at, &[], &[&prefix]);
            self.shard.memory_taken(state.tail.capacity() - before);
        }
        Ok(())
    }

    /// Whether the active segment has to be warmed up before it takes a batch.
    pub(super) fn is_cold(&self, state: &LogState<E>) -> bool {
        let Some((_, segment)) = state.segments.last_key_value() else {
            return false;
        };
        let ragged = segment.size % BLOCK_BYTES as u64 != 0;
        state.parked.is_some()
            || segment.size > 0
                && (segment.sealed
                    || segment.indexes.is_none()
                    || segment.first_timestamp.is_none()
                    || (ragged && state.tail.start().is_none()))
    }
}

/// What a batch in pieces tells of its producer.
pub(crate) fn event_of(
    pieces: &[&[u8]],
    header: &BatchHeader,
) -> Result<Option<ProducerEvent>, String> {
    let event = if EndTransactionMarker::is_possible(header) {
        let batch = pieces.concat();
        ProducerEvent::of(header, batch.get(HEADER_BYTES..).unwrap_or_default())
    } else {
        ProducerEvent::of(header, &[])
    };
    event.map_err(|error| {
        let offset = header.base_offset;
        format!("the journal's batch at offset {offset}: {error}")
    })
}
