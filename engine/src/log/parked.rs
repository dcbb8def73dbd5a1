//! Batches that a start after a crash has found in the journal and left there: the log knows all about them, and their bytes come into its tail when somebody needs them.
//!
//! Being ready thus waits for no segment. What is parked is the end of the log as it was at the crash: nobody reads, appends, truncates or checkpoints before all of it is in the
//! tail ([`Log::settle`]), from where it is written behind as always. Until then the journal files that hold it are pinned, like those of anything else that is not synced.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use futures_util::stream::{self, StreamExt};

use super::flush::Place;
use super::tail::CHUNK_BYTES_MIN;
use super::{Log, LogError, LogState, ReadError};
use crate::batch::BatchHeader;
use crate::disk::{Disk, DiskFile};
use crate::engine::ballast::may_pass;
use crate::environment::Environment;
use crate::journal::FileMark;
use crate::journal::entry::body_at;
use crate::journal::found::FoundItem;
use crate::memory::{AlignedBuffer, BLOCK_BYTES, round_down, round_up};
use crate::producer_state::ProducerEvent;

/// Logs of a shard that bring theirs in at a time,
pub(crate) const SETTLING_MAX: usize = 8;
/// and reads of the journal under way for each; a third one's bytes are on their way into the tail. Outside of the budget for tails there are thus at most 24 MiB a shard, unless a
/// single batch has more than [`READ_BYTES_MAX`].
const READ_DEPTH: usize = 2;
/// Bytes read in one go, unless a single batch has more,
const READ_BYTES_MAX: u64 = 1 << 20;
/// and those read in between that belong to other logs.
const READ_GAP_BYTES: u64 = 16 << 10;

/// Where a batch lies in the journal, and where it belongs.
#[derive(Clone, Copy)]
struct ParkedBatch {
    at: Place,
    length: u32,
    file: u32,
    /// Where its entry starts in the file, and the parts of its body in the entry.
    entry: u64,
    staged: u32,
    blocks: u32,
    /// The checksum in its header, and what of that the checksum does not cover.
    checksum: u32,
    leader_epoch: i32,
    base_offset: i64,
}

// While their list grows, at most an eighth of what batches of `parked_batch_bytes_min` have in the journal.
const _: () = assert!(size_of::<ParkedBatch>() <= 56);

impl ParkedBatch {
    /// The parts of its body in the file.
    fn body(&self) -> [Range<u64>; 3] {
        let parts = body_at(
            self.at.position as u32,
            self.length as usize,
            self.staged as usize,
            self.blocks as usize,
        );
        parts.map(|part| self.entry + part.start as u64..self.entry + part.end as u64)
    }

    /// The blocks of the file that hold all of it: one range, or two where what is staged lies far from the whole blocks.
    fn spans(&self) -> (Range<u64>, Option<Range<u64>>) {
        let blocks_of = |part: Range<u64>| {
            round_down(part.start as usize) as u64..round_up(part.end as usize) as u64
        };
        let [head, whole, tail] = self.body();
        let (staged, whole) = (blocks_of(head.start..tail.end), blocks_of(whole));
        if whole.is_empty() {
            return (staged, None);
        }
        if staged.is_empty() {
            return (whole, None);
        }
        let (first, second) = match staged.start <= whole.start {
            true => (staged, whole),
            false => (whole, staged),
        };
        match second.start <= first.end + READ_GAP_BYTES {
            true => (first.start..first.end.max(second.end), None),
            false => (first, Some(second)),
        }
    }
}

/// Files of the journal as they were found.
pub(crate) type Files<E> = Rc<[<<E as Environment>::Disk as Disk>::File]>;

/// See the module.
pub(crate) struct Parked<E: Environment> {
    files: Files<E>,
    /// In the log's order; never empty.
    batches: VecDeque<ParkedBatch>,
}

impl<E: Environment> LogState<E> {
    /// Where what is parked begins.
    pub fn parked_from(&self) -> Option<Place> {
        let parked = self.parked.as_ref()?;
        parked.batches.front().map(|batch| batch.at)
    }
}

impl<E: Environment> Log<E> {
    /// Takes a batch of the journal in at the log's end and leaves its bytes where they are; an error says why the log has to stay offline.
    pub(crate) async fn park(
        &self,
        at: Place,
        found: &FoundItem,
        header: &BatchHeader,
        event: Option<&ProducerEvent>,
        mark: &Rc<FileMark>,
        files: &Files<E>,
    ) -> Result<(), String> {
        self.find_place(at, header).await?;
        let base = at.segment;
        let indexed = self
            .state
            .borrow()
            .segments
            .get(&base)
            .is_some_and(|segment| segment.indexes.is_some() || segment.size == 0);
        if !indexed {
            self.load_indexes(base)
                .await
                .map_err(|error| error.to_string())?;
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut first_unknown = false;
        if let Some(segment) = state.segments.get_mut(&base) {
            segment.sealed = false;
            segment.lowest_aborted = None;
            first_unknown = segment.size > 0 && segment.first_timestamp.is_none();
            if let Some(indexes) = &segment.indexes {
                // Before a batch comes in: from then on the largest time counts as known.
                let newest = indexes.max_timestamp().timestamp;
                segment.max_timestamp = segment.max_timestamp.max(newest);
            }
        }
        self.note_batch(state, header, at.position, event, self.now_ms());
        if first_unknown && let Some(segment) = state.segments.get_mut(&base) {
            // That of the segment's first batch is read when the log is warmed up.
            segment.first_timestamp = None;
        }
        self.note_replayed(state, mark);
        self.shard.note_parked();
        let (staged, blocks) = found.read.body_places();
        let parked = state.parked.get_or_insert_with(|| {
            Box::new(Parked {
                files: files.clone(),
                batches: VecDeque::new(),
            })
        });
        parked.batches.push_back(ParkedBatch {
            at,
            length: header.size() as u32,
            file: found.file() as u32,
            entry: found.position,
            staged,
            blocks,
            checksum: header.checksum,
            leader_epoch: header.leader_epoch,
            base_offset: header.base_offset,
        });
        Ok(())
    }

    /// Whether some of the log is parked.
    pub(crate) fn is_parked(&self) -> bool {
        self.state.borrow().parked.is_some()
    }

    /// Brings what is parked into the tail. Must not be called by who has the turn on the files: memory may have to be freed by writing behind.
    ///
    /// # Errors
    /// When the log is or goes offline, or memory or descriptors are wanting, in which case it may be tried again.
    pub(crate) async fn settle(&self) -> Result<(), ReadError> {
        if !self.is_parked() {
            return Ok(());
        }
        // What is rare has its state elsewhere.
        Box::pin(self.settle_parked()).await
    }

    async fn settle_parked(&self) -> Result<(), ReadError> {
        // Who is before it may wait for what only the deletion of this log, or of that one, gives back.
        let _turn = self.while_open(self.settling.enter()).await?;
        self.reserve_parked().await?;
        let _lane = self.while_open(self.shard.settling_lane().enter()).await?;
        let (files, runs) = {
            let state = self.state.borrow();
            let Some(parked) = &state.parked else {
                return Ok(());
            };
            (parked.files.clone(), runs_of(&parked.batches))
        };
        let reads = runs.into_iter().map(|run| {
            let file = files[run.batches[0].file as usize].clone();
            async move {
                let mut pieces = Vec::with_capacity(run.spans.len());
                for span in run.spans {
                    let length = (span.end - span.start) as usize;
                    let buffer = self.shard.pool.buffer(length);
                    let (buffer, _) = file.read_at(span.start, buffer, length).await?;
                    pieces.push((span.start, buffer));
                }
                io::Result::Ok((run.batches, pieces))
            }
        });
        let mut reads = stream::iter(reads).buffered(READ_DEPTH);
        while let Some(read) = reads.next().await {
            self.check_online()?;
            let (batches, pieces) = read.map_err(|error| self.journal_unreadable(&error))?;
            for batch in batches {
                self.unpark(&batch, &pieces).await?;
            }
        }
        Ok(())
    }

    /// Has space reserved for what is parked: what is in tails can be written behind however full the disk is, so nobody who waits for memory waits for space.
    async fn reserve_parked(&self) -> Result<(), ReadError> {
        let _io = self.io.enter().await;
        self.check_online()?;
        let wanting: Vec<(i64, u64, u64)> = {
            let state = self.state.borrow();
            let Some(from) = state.parked_from() else {
                return Ok(());
            };
            let segments = state.segments.range(from.segment..);
            let wanting = segments.filter(|(_, segment)| segment.reserved < segment.size);
            wanting
                .map(|(base, segment)| (*base, segment.reserved, segment.size))
                .collect()
        };
        for (base, reserved, size) in wanting {
            let reserving = async {
                let file = self.open_segment(base).await?;
                let wished = round_up(size as usize) as u64;
                self.allocate(&file, reserved, wished, size).await
            };
            let reserved = reserving.await.map_err(|error| {
                let failure = self.storage_error("reserving space in a segment", &error);
                self.segment_refuses(base, ReadError::Log(failure))
            })?;
            if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
                segment.reserved = segment.reserved.max(reserved);
            }
        }
        Ok(())
    }

    /// A part of the journal that the log needs cannot be read. It takes this log offline, and only this one: unlike an entry whose writing has failed, it leaves no doubt about what
    /// the medium holds of others, who have their batches or find out for themselves.
    fn journal_unreadable(&self, error: &io::Error) -> ReadError {
        let failure = self.storage_error("reading the journal", error);
        if !may_pass(error) {
            self.take_offline(&format!(
                "its last records cannot be read from the journal ({error}); they are acknowledged, so nothing is cut away: repair the disk and restart the broker, or restore the log from another copy"
            ));
        }
        ReadError::Log(self.check_online().err().unwrap_or(failure))
    }

    /// A segment that what is parked goes to cannot be used. Not to be tried again and again by checkpoints while the journal fills up, unless space or descriptors are wanting.
    fn segment_refuses(&self, base: i64, error: ReadError) -> ReadError {
        let is_of_disk = matches!(error, ReadError::Log(LogError::Storage { .. }));
        if is_of_disk && error.may_pass().is_none() {
            self.take_offline(&format!(
                "segment {base} cannot be used ({error}); everything acknowledged is safe in the journal: repair the disk and restart the broker"
            ));
        }
        match self.check_online() {
            Ok(()) => error,
            Err(offline) => ReadError::Log(offline),
        }
    }

    /// Brings one batch, which lies in these pieces of its file, into the tail.
    async fn unpark(&self, batch: &ParkedBatch, pieces: &[Piece]) -> Result<(), ReadError> {
        let parts = batch.body().map(|part| {
            let held = pieces.iter().find_map(|(start, bytes)| {
                let from = part.start.checked_sub(*start)? as usize;
                bytes.get(from..from + (part.end - part.start) as usize)
            });
            held.unwrap_or_default()
        });
        if !is_the_batch(&parts, batch) {
            self.take_offline(&format!(
                "the journal no longer holds the batch at offset {} as it was found at the start: its disk has lost acknowledged records; delete its topic before the broker is started again, which will find damage in the whole journal, or restore the log from another copy",
                batch.base_offset
            ));
            self.check_online()?;
        }
        let (at, length) = (batch.at, batch.length as usize);
        let mut prefix = self.prefix_of(at).await?;
        let mut memory = None;
        loop {
            self.check_online()?;
            let growth = {
                let mut state = self.state.borrow_mut();
                state.tail.set_chunk_bytes_max(self.shard.chunk_bytes_max());
                state.tail.growth_for(at, length)
            };
            let has_memory = self.shard.has_memory(growth)
                || self.shard.tail_bytes() <= CHUNK_BYTES_MIN as u64
                || self.shard.stopping.get();
            let ends_here = self.state.borrow().tail.ends_at(at);
            if has_memory && (ends_here || prefix.is_some()) {
                break;
            }
            if !ends_here && prefix.is_none() {
                // The block it goes on in was let go meanwhile.
                prefix = self.prefix_of(at).await?;
                continue;
            }
            drop(memory.take());
            let turn = self.shard.wait_for_memory(growth, self);
            memory = Some(self.while_open(turn).await?);
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let before = state.tail.capacity();
        let prefix = match state.tail.ends_at(at) {
            true => Vec::new(),
            false => prefix.unwrap_or_default(),
        };
        state.tail.append(&self.shard.pool, at, &prefix, &parts);
        self.shard.memory_taken(state.tail.capacity() - before);
        if let Some(parked) = &mut state.parked {
            parked.batches.pop_front();
            if parked.batches.is_empty() {
                state.parked = None;
            }
        }
        self.shard.note_settled();
        if state.dirty_since.is_none() {
            state.dirty_since = Some(self.shard.env.now());
            self.shard.became_dirty(self);
        }
        if state.dirty_bytes() >= self.shard.config.write_behind_bytes {
            self.shard.queue_write_behind(self);
        }
        Ok(())
    }

    /// What the file holds of the block that `at` lies in, before it; `None` when the tail ends there.
    async fn prefix_of(&self, at: Place) -> Result<Option<Vec<u8>>, ReadError> {
        let ragged = at.position as usize % BLOCK_BYTES;
        if ragged == 0 {
            return Ok(Some(Vec::new()));
        }
        if self.state.borrow().tail.ends_at(at) {
            return Ok(None);
        }
        let aligned = at.position - ragged as u64;
        let block = self
            .read_file(at.segment, aligned, BLOCK_BYTES, at.position)
            .await
            .map_err(|error| self.segment_refuses(at.segment, error))?;
        if block.len() < ragged {
            let reason = format!(
                "the file of segment {} ends before position {}",
                at.segment, at.position
            );
            self.take_offline(&reason);
            self.check_online()?;
        }
        Ok(Some(block.to_vec()))
    }
}

/// Bytes of a journal file, and where they begin there.
type Piece = (u64, AlignedBuffer);

/// Batches that are read in one go, with the blocks that hold them: several that lie near each other, or one that lies in two places.
struct Run {
    batches: Vec<ParkedBatch>,
    spans: Vec<Range<u64>>,
}

fn runs_of(batches: &VecDeque<ParkedBatch>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for batch in batches {
        let (next, apart) = batch.spans();
        if apart.is_none()
            && let Some(run) = runs.last_mut()
            && run.batches[0].file == batch.file
            && let [span] = &mut run.spans[..]
            && next.start >= span.start
            && next.start <= span.end + READ_GAP_BYTES
            && next.end - span.start <= READ_BYTES_MAX
        {
            span.end = span.end.max(next.end);
            run.batches.push(*batch);
        } else {
            runs.push(Run {
                batches: vec![*batch],
                spans: [next].into_iter().chain(apart).collect(),
            });
        }
    }
    runs
}

/// Whether these bytes are the batch that was found at the start.
fn is_the_batch(parts: &[&[u8]; 3], batch: &ParkedBatch) -> bool {
    let whole;
    let bytes = match parts {
        [bytes, [], []] => *bytes,
        _ => {
            whole = parts.concat();
            &whole
        }
    };
    BatchHeader::parse(bytes).is_ok_and(|header| {
        header.size() == batch.length as usize
            && header.checksum == batch.checksum
            && header.leader_epoch == batch.leader_epoch
            && header.base_offset == batch.base_offset
            && bytes.len() == header.size()
            && header.checksum_matches(bytes)
    })
}

#[cfg(test)]
mod tests {
    //! What is read of the journal is not much more than what is wanted of it.
    use super::*;

    fn parked(staged: u32, blocks: u32, length: u32) -> ParkedBatch {
        ParkedBatch {
            at: Place {
                segment: 0,
                position: 100,
            },
            length,
            file: 0,
            entry: 8192,
            staged,
            blocks,
            checksum: 0,
            leader_epoch: 0,
            base_offset: 0,
        }
    }

    fn bytes_of(spans: &[Range<u64>]) -> u64 {
        spans.iter().map(|span| span.end - span.start).sum()
    }

    #[test]
    fn of_a_large_entry_only_the_batch_is_read() {
        let far = parked(200, 512 << 10, 16_384);
        let runs = runs_of(&VecDeque::from([far, far]));
        assert_eq!(runs.len(), 2);
        for run in &runs {
            assert_eq!(run.spans.len(), 2);
            assert!(bytes_of(&run.spans) <= 16_384 + 3 * BLOCK_BYTES as u64);
            let body = far.body();
            for part in body.iter().filter(|part| !part.is_empty()) {
                let holds = |span: &Range<u64>| span.start <= part.start && part.end <= span.end;
                assert!(run.spans.iter().any(holds), "{part:?}");
            }
        }
        // What lies together is read together.
        let near = runs_of(&VecDeque::from([
            parked(200, 4096, 16_384),
            parked(20_000, 24_576, 16_384),
        ]));
        assert_eq!((near.len(), near[0].batches.len()), (1, 2));
    }
}
