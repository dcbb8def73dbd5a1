//! Cleaning one log: reading its dirty part into an offset map, copying what stays into new segments.
//!
//! Works on sealed segments alone, through files that it holds open, in short stretches between which everybody else has a turn, and without the turn on the log's files: nothing
//! waits for a pass. What it made is put in place by [`super::swap`] if the log is still what it was when the pass began; otherwise it is thrown away and the pass ends.

use std::io;
use std::time::Duration;

use super::Log;
use super::clean_files::{Output, SegmentReader};
use crate::batch::{BatchHeader, Record, Records, read_records, read_records_in_steps};
use crate::cleaner::STRETCH_BYTES;
use crate::cleaner::filter::{Filter, Kept, Rules, bare};
use crate::cleaner::memory::PassMemory;
use crate::cleaner::offset_map::OffsetMap;
use crate::cleaner::range::{DirtyRange, GroupLimits, Lags, SegmentFacts, groups};
use crate::cleaner::throttle::Pause;
use crate::cleaner::transactions::{CleanedTransactions, Marker};
use crate::engine::ballast::may_pass;
use crate::engine::cleaner::Work;
use crate::environment::Environment;
use crate::index::{AbortedTransaction, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use crate::log::ReadError;
use crate::segment::SEGMENT_BYTES_LIMIT;
use crate::wait::yield_now;

/// Most bytes that a stored batch may decompress to: more than any setting of `batch.decompressed.bytes.max` lets in.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 31;

/// Why a pass ended early. Whatever the reason, the log is as it was, but for the groups of segments that were finished.
#[derive(Debug)]
pub(crate) enum CleanFailure {
    /// The log has changed or leaves, or the shard stops: another pass may come.
    Interrupted(&'static str),
    /// The disk refused something that may pass: space or descriptors.
    Short(io::Error),
    /// The log cannot be cleaned as it is.
    Uncleanable(String),
}

impl From<io::Error> for CleanFailure {
    fn from(error: io::Error) -> Self {
        if may_pass(&error) {
            Self::Short(error)
        } else {
            Self::Uncleanable(error.to_string())
        }
    }
}

impl From<ReadError> for CleanFailure {
    fn from(error: ReadError) -> Self {
        match error.may_pass() {
            Some(_) => Self::Short(error.into_io()),
            None => Self::Uncleanable(error.to_string()),
        }
    }
}

/// What a pass has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// The first offset that was not cleaned.
    pub end_offset: i64,
    /// Truncations of the log before the pass.
    pub truncations: u64,
    /// Bytes of the segments that were replaced.
    pub replaced_bytes: u64,
    /// Bytes of those in their place.
    pub kept_bytes: u64,
}

impl<E: Environment> Log<E> {
    /// No batch at or after this offset may be cleaned: the active segment; what is not flushed, synced and described by durable files; what the journal may put back, after a
    /// truncation; and what lies beyond the last stable offset.
    pub(crate) fn first_uncleanable_offset(&self) -> i64 {
        let stable = self.last_stable_offset();
        let state = self.state.borrow();
        let active = state.segments.last_key_value();
        let unsealed = state.segments.values().find(|segment| !segment.sealed);
        [
            active.map_or(state.next_offset, |(base, _)| *base),
            unsealed.map_or(i64::MAX, |segment| segment.base_offset),
            state.recovery_point,
            stable,
            self.truncation_floor(),
        ]
        .into_iter()
        .fold(i64::MAX, i64::min)
    }

    /// Where the journal may truncate the log to at the next start, although it has gone on since.
    fn truncation_floor(&self) -> i64 {
        match self.truncated.get() {
            Some((_, sequence)) if self.shard.journal().durable_oldest_live() > sequence => {
                self.truncated.set(None);
                i64::MAX
            }
            Some((offset, _)) => offset,
            None => i64::MAX,
        }
    }

    /// The journal's entry `sequence`, or an earlier one, says that the log ends at `offset`.
    pub(crate) fn note_truncation(&self, offset: i64, sequence: u64) {
        let lowest = self
            .truncated
            .get()
            .map_or(offset, |(lowest, _)| lowest.min(offset));
        self.truncated.set(Some((lowest, sequence)));
    }

    /// What is known of the segments that are not the active one.
    fn segment_facts(&self) -> Vec<SegmentFacts> {
        let state = self.state.borrow();
        let pairs = state.segments.values().zip(state.segments.keys().skip(1));
        pairs
            .map(|(segment, end)| SegmentFacts {
                base: segment.base_offset,
                end: *end,
                size: segment.size,
                max_timestamp: segment.max_timestamp,
                first_timestamp: segment.first_timestamp,
            })
            .collect()
    }

    /// The log's dirty part, given where the last pass ended.
    pub(crate) async fn dirty_range(
        &self,
        cleaned_to: Option<i64>,
        now_ms: i64,
    ) -> Result<DirtyRange, CleanFailure> {
        let truncations = self.flush.truncations();
        let config = self.config();
        let lags = Lags {
            min_ms: config.min_compaction_lag_ms,
            max_ms: config.max_compaction_lag_ms,
        };
        let barrier = self.first_uncleanable_offset();
        let mut facts = self.segment_facts();
        facts.retain(|segment| segment.end <= barrier);
        for segment in &mut facts {
            if lags.min_ms > 0 {
                segment.max_timestamp = self.max_timestamp_of(segment.base).await?;
            }
            if lags.max_ms < i64::MAX && segment.first_timestamp.is_none() {
                segment.first_timestamp = self.first_timestamp_of(segment.base).await?;
            }
        }
        let bounds = (self.log_start_offset(), self.log_end_offset());
        Ok(DirtyRange {
            truncations,
            ..DirtyRange::of(&facts, cleaned_to, bounds, barrier, lags, now_ms)
        })
    }

    /// The largest timestamp of a segment's first batch; `None` when there is no batch.
    pub(super) async fn first_timestamp_of(&self, base: i64) -> Result<Option<i64>, ReadError> {
        let first = self.header_at(base, 0).await?;
        let first = first.map(|header| header.max_timestamp);
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.first_timestamp = first;
        }
        Ok(first)
    }

    /// Cleans the dirty part: everything before where it ends is copied without what it replaces.
    pub(crate) async fn clean(
        &self,
        range: &DirtyRange,
        now_ms: i64,
    ) -> Result<Cleaned, CleanFailure> {
        // Since the range was found: a log that was truncated and has gone on has other records there.
        let truncations = range.truncations;
        let first = self.first_base();
        self.check_cleanable(truncations)?;
        match self.clean_undisturbed(range, now_ms, truncations).await {
            Err(CleanFailure::Uncleanable(_)) if self.first_base() != first => {
                Err(CleanFailure::Interrupted("a segment has expired"))
            }
            // What was read of a log that has changed says nothing about it.
            Err(CleanFailure::Uncleanable(reason)) => Err(self
                .check_cleanable(truncations)
                .err()
                .unwrap_or(CleanFailure::Uncleanable(reason))),
            other => other,
        }
    }

    fn first_base(&self) -> Option<i64> {
        let state = self.state.borrow();
        state.segments.first_key_value().map(|(base, _)| *base)
    }

    async fn clean_undisturbed(
        &self,
        range: &DirtyRange,
        now_ms: i64,
        truncations: u64,
    ) -> Result<Cleaned, CleanFailure> {
        let mut done = Cleaned {
            truncations,
            ..Cleaned::default()
        };
        let facts: Vec<SegmentFacts> = self
            .segment_facts()
            .into_iter()
            .filter(|segment| segment.end <= range.first_uncleanable)
            .collect();
        let aborted = self.all_aborted().await?;
        let offsets = (range.first_uncleanable - range.first_dirty).max(0) as u64;
        let memory = self
            .shard
            .config
            .cleaner_memory
            .take(OffsetMap::bytes_for(offsets));
        let map = self
            .map_dirty_part(&facts, range, &aborted, done.truncations, &memory)
            .await?;
        done.end_offset = map.latest_offset() + 1;
        if done.end_offset <= range.first_dirty {
            if memory.bytes < self.shard.config.cleaner_memory.most_bytes() {
                return Err(CleanFailure::Interrupted(
                    "other shards' passes have the memory",
                ));
            }
            return Err(CleanFailure::Uncleanable(format!(
                "the batch at offset {} has more keys than the {} that log.cleaner.dedupe.buffer.size has room for",
                range.first_dirty,
                map.capacity()
            )));
        }
        let config = self.config();
        let producers = self
            .state
            .borrow()
            .producers
            .last_of_producers(self.now_ms());
        let mut filter = Filter::new(Rules {
            map: &map,
            now_ms,
            delete_retention_ms: config.delete_retention_ms.max(0),
            producers: &producers,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        });
        filter.expect_aborted(aborted);
        let before_end = facts.partition_point(|segment| segment.base < done.end_offset);
        let facts = &facts[..before_end];
        let entries = config.segment_index_bytes / OFFSET_ENTRY_BYTES.max(TIME_ENTRY_BYTES) as u64;
        let limits = GroupLimits {
            segment_bytes: config.segment_bytes.min(SEGMENT_BYTES_LIMIT),
            // Two entries stay free, as when a segment rolls.
            indexed_bytes: entries.saturating_sub(2)
                * u64::from(config.index_interval_bytes.max(1)),
        };
        for group in groups(facts, limits) {
            let members = &facts[group];
            let mut output = None;
            let result = self
                .clean_group(members, &mut filter, &mut done, &mut output)
                .await;
            if result.is_err() {
                if let Some(output) = output {
                    output.give_up().await;
                }
                self.discard_output(members[0].base).await;
            }
            result?;
        }
        Ok(done)
    }

    /// Reads as much of the dirty part as the map holds.
    async fn map_dirty_part(
        &self,
        facts: &[SegmentFacts],
        range: &DirtyRange,
        aborted: &[AbortedTransaction],
        truncations: u64,
        memory: &PassMemory,
    ) -> Result<OffsetMap, CleanFailure> {
        let env = &self.shard.env;
        let secret = [env.random(), env.random()];
        let mut map = OffsetMap::new(memory.bytes, secret);
        let mut transactions = CleanedTransactions::default();
        transactions.add(aborted.iter().copied());
        for segment in facts
            .iter()
            .filter(|segment| segment.end > range.first_dirty)
        {
            let position = match segment.base < range.first_dirty {
                true => self.position_hint(segment.base, range.first_dirty).await?,
                false => 0,
            };
            let mut reader = self.reader_of(segment, position).await?;
            while let Some((header, batch)) = reader.next().await? {
                let turn = async |bytes| self.breathe(bytes).await;
                let noted = map_batch(
                    &mut map,
                    &mut transactions,
                    (&header, &batch),
                    range.first_dirty,
                    &turn,
                );
                if !noted.await? {
                    return Ok(map);
                }
                if header.last_offset() >= range.first_dirty {
                    map.reached(header.last_offset());
                }
                self.pause(batch.len(), truncations).await?;
            }
            map.reached(segment.end - 1);
        }
        Ok(map)
    }

    /// Copies what stays of neighbouring segments into one, and puts that in their place unless it would be the same.
    async fn clean_group(
        &self,
        members: &[SegmentFacts],
        filter: &mut Filter<'_>,
        done: &mut Cleaned,
        output: &mut Option<Output<E>>,
    ) -> Result<(), CleanFailure> {
        filter.aborted.clear();
        let [first, ..] = members else { return Ok(()) };
        for (number, member) in members.iter().enumerate() {
            let mut reader = self.reader_of(member, 0).await?;
            loop {
                let position = reader.position();
                let Some((header, batch)) = reader.next().await? else {
                    break;
                };
                let ends_group = number + 1 == members.len() && reader.is_at_end();
                let turn = async |bytes| self.breathe(bytes).await;
                let kept = judge(filter, &header, &batch, ends_group, &turn).await?;
                if output.is_none() && (members.len() > 1 || kept != Kept::Whole) {
                    let mut begun = self.begin_output(first.base, done.truncations).await?;
                    let copied = self.copy_start(&mut begun, first, position, done.truncations);
                    let copied = copied.await;
                    *output = Some(begun);
                    copied?;
                }
                let mut worked = batch.len();
                match (&mut *output, &kept) {
                    (Some(output), Kept::Whole) => {
                        worked += batch.len();
                        output.push(self, &header, &batch).await?;
                    }
                    (Some(output), Kept::Changed(changed)) => {
                        let header = BatchHeader::parse(changed).map_err(uncleanable)?;
                        worked += changed.len();
                        output.push(self, &header, changed).await?;
                    }
                    (_, Kept::Nothing) | (None, _) => {}
                }
                self.pause(worked, done.truncations).await?;
            }
        }
        let Some(output) = output.take() else {
            return Ok(());
        };
        let replaced: u64 = members.iter().map(|member| member.size).sum();
        let sealed = output.finish(self, &filter.aborted).await?;
        let size = sealed.size;
        self.put_in_place(members, sealed, done.truncations).await?;
        done.replaced_bytes += replaced;
        done.kept_bytes += size;
        Ok(())
    }

    /// Copies the batches before `position`, which stay as they are.
    async fn copy_start(
        &self,
        output: &mut Output<E>,
        segment: &SegmentFacts,
        position: u64,
        truncations: u64,
    ) -> Result<(), CleanFailure> {
        let mut reader = self.reader_of(segment, 0).await?;
        while reader.position() < position
            && let Some((header, batch)) = reader.next().await?
        {
            output.push(self, &header, &batch).await?;
            self.pause(2 * batch.len(), truncations).await?;
        }
        Ok(())
    }

    async fn reader_of(
        &self,
        segment: &SegmentFacts,
        position: u64,
    ) -> Result<SegmentReader<E>, CleanFailure> {
        let file = self.open_segment(segment.base).await?;
        let step = self.shard.config.cleaner_io_buffer_bytes / 4;
        let pool = self.shard.pool.clone();
        Ok(SegmentReader::new(
            file,
            pool,
            step,
            segment.base..segment.end,
            segment.size,
            position,
        ))
    }

    /// The aborted transactions of the whole log.
    async fn all_aborted(&self) -> Result<Vec<AbortedTransaction>, CleanFailure> {
        let bases: Vec<i64> = self.state.borrow().segments.keys().copied().collect();
        let mut found = Vec::new();
        for base in bases {
            self.load_indexes(base).await?;
            let state = self.state.borrow();
            match state.segments.get(&base).map(|segment| &segment.indexes) {
                Some(Some(indexes)) => found.extend_from_slice(indexes.transactions.entries()),
                // Not to know of an aborted transaction would make its records the last of their keys.
                Some(None) => return Err(CleanFailure::Interrupted("an index was let go")),
                // The segment has expired.
                None => {}
            }
        }
        Ok(found)
    }

    /// Lets others have a turn when it is time to, after so many bytes were read and written.
    async fn pause(&self, bytes: usize, truncations: u64) -> Result<(), CleanFailure> {
        match self.rest_after(Work::Io(bytes)).await {
            true => self.check_cleanable(truncations),
            false => Ok(()),
        }
    }

    /// The same in the middle of a batch, whose bytes are counted elsewhere.
    async fn breathe(&self, bytes: usize) {
        self.rest_after(Work::Memory(bytes)).await;
    }

    /// Whether others had a turn.
    async fn rest_after(&self, work: Work) -> bool {
        let shard = &self.shard;
        let entries = shard.journal().counters().entries;
        match shard.cleaner.done(work, shard.env.now(), entries) {
            Pause::None => return false,
            Pause::Yield => yield_now().await,
            Pause::Sleep(microseconds) => {
                shard
                    .sleep_or_stop(Duration::from_micros(microseconds))
                    .await;
            }
        }
        shard.cleaner.resumed(shard.env.now());
        true
    }

    /// Whether a pass that began so many truncations ago may go on.
    pub(crate) fn check_cleanable(&self, truncations: u64) -> Result<(), CleanFailure> {
        if self.shard.stopping.get() || self.shard.registry.closing.get() {
            return Err(CleanFailure::Interrupted("the broker is stopping"));
        }
        if self.is_retiring() || self.check_online().is_err() {
            return Err(CleanFailure::Interrupted("the log leaves or is offline"));
        }
        if !self.replacing.is_free() || self.flush.truncations() != truncations {
            return Err(CleanFailure::Interrupted("the log was truncated"));
        }
        Ok(())
    }
}

/// What stays of a batch; of the last one of a group always something, so that the new segment ends where the old ones did.
async fn judge(
    filter: &mut Filter<'_>,
    header: &BatchHeader,
    batch: &[u8],
    ends_group: bool,
    turn: &impl AsyncFn(usize),
) -> Result<Kept, CleanFailure> {
    let judged = filter.judge(header, batch, turn).await;
    let kept = judged.map_err(uncleanable)?;
    Ok(match kept {
        Kept::Nothing if ends_group && header.record_count == 0 => Kept::Whole,
        Kept::Nothing if ends_group => Kept::Changed(bare(header).to_vec()),
        kept => kept,
    })
}

/// Notes the keys of a batch; false when the map is full.
async fn map_batch(
    map: &mut OffsetMap,
    transactions: &mut CleanedTransactions,
    (header, batch): (&BatchHeader, &[u8]),
    first_dirty: i64,
    turn: &impl AsyncFn(usize),
) -> Result<bool, CleanFailure> {
    if header.attributes.is_control() {
        let records = read_records(batch, header, DECOMPRESSED_BYTES_MAX).map_err(uncleanable)?;
        let first = records.iter().next().transpose().map_err(uncleanable)?;
        transactions.marker(header, first.as_ref().map(Marker::of));
        return Ok(true);
    }
    if transactions.batch(header) || header.last_offset() < first_dirty {
        return Ok(true);
    }
    let records = read_records_in_steps(batch, header, DECOMPRESSED_BYTES_MAX, turn).await;
    let records = records.map_err(uncleanable)?;
    let mut walk = records.iter();
    // A record takes seven bytes at least.
    let keys_max = usize::try_from(header.record_count)
        .unwrap_or_default()
        .min(STRETCH_BYTES / 7);
    loop {
        while map.make_room(keys_max) {
            turn(STRETCH_BYTES).await;
        }
        let from = walk.position();
        match map_stretch(map, header, &mut walk, first_dirty)? {
            Mapped::Stretch => turn(walk.position() - from).await,
            Mapped::All => return Ok(true),
            Mapped::Full => return Ok(false),
        }
    }
}

/// How far a batch's keys are noted.
enum Mapped {
    /// There may be more.
    Stretch,
    /// All are.
    All,
    /// The map is full.
    Full,
}

fn map_stretch(
    map: &mut OffsetMap,
    header: &BatchHeader,
    walk: &mut Records<'_>,
    first_dirty: i64,
) -> Result<Mapped, CleanFailure> {
    let until = Records::position(walk).saturating_add(STRETCH_BYTES);
    while Records::position(walk) < until {
        let Some(record) = walk.next() else {
            return Ok(Mapped::All);
        };
        let record: Record<'_> = record.map_err(uncleanable)?;
        let offset = header
            .base_offset
            .saturating_add(i64::from(record.offset_delta));
        if let Some(key) = record.key
            && offset >= first_dirty
            && !map.put(key, offset)
        {
            return Ok(Mapped::Full);
        }
    }
    Ok(Mapped::Stretch)
}

pub(super) fn uncleanable(error: impl std::fmt::Display) -> CleanFailure {
    CleanFailure::Uncleanable(error.to_string())
}
