//! Reading: whole batches from the tail's chunks without a copy, or from the segment files by direct reads of at most a mebibyte.
//!
//! The place of an offset comes from the segment's offset index, which is a hint: the batch header found there must agree, else the index is rebuilt. Nothing beyond the
//! limit is served. Offset and length lie outside a batch's checksum, so each header from a file must fit between its neighbours; and a read that finds nothing below its limit
//! has met damage, never an end. A read that was overtaken by a truncation, or by segments that took the place of others, starts again.

mod scan;

use bytes::Bytes;

use scan::{Bounds, Run, Stop, Wanted};

use super::flush::Place;
use super::{Log, ReadError, ReadLimit, ReadResult};
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::environment::Environment;
use crate::memory::{BLOCK_BYTES, round_up};

/// Bytes read from a file in one step, unless a single batch is larger.
const STEP_BYTES: usize = 1 << 20;
/// Bytes read from a file at least: what lies between two index entries and more.
const STEP_BYTES_MIN: usize = 64 << 10;

/// What a read gives: slices of whole batches, the base offset of the first, the offset after the last.
type Found = (Vec<Bytes>, Option<i64>, i64);

impl<E: Environment> Log<E> {
    /// Reads whole batches from the one that contains `start_offset` on, up to `max_bytes`; with `min_one` at least one batch, however large (KIP-74).
    ///
    /// Empty at or beyond the limit.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] before the log's start or beyond its end; otherwise see [`ReadError`].
    pub async fn read(
        &self,
        start_offset: i64,
        max_bytes: usize,
        min_one: bool,
        limit: ReadLimit,
    ) -> Result<ReadResult, ReadError> {
        loop {
            self.check_online()?;
            let truncations = self.flush.truncations();
            let replacements = self.replacements.get();
            let wanted = match self.wanted(start_offset, max_bytes, min_one, limit)? {
                Ok(wanted) => wanted,
                Err(empty) => return Ok(empty),
            };
            self.settle().await?;
            let found = self.read_from(&wanted).await;
            // Whatever was found, something has been removed meanwhile.
            if self.flush.truncations() != truncations
                || self.replacements.get() != replacements
                || self.flush.closed().is_some()
                || self.log_start_offset() > start_offset
            {
                continue;
            }
            // A limit is where a batch ends: below it there is one.
            let Some((pieces, first, next_offset)) = found? else {
                return Err(self.corrupt(
                    start_offset,
                    format!(
                        "no batch from there to {} although the log has them",
                        wanted.limit
                    ),
                ));
            };
            return Ok(ReadResult {
                pieces,
                first_base_offset: first,
                next_offset,
                high_watermark: self.high_watermark(),
                last_stable_offset: self.last_stable_offset(),
                log_start_offset: self.log_start_offset(),
            });
        }
    }

    /// Reads from the segment that holds the offset, or from the next when the offset lies beyond that one's last batch.
    async fn read_from(&self, wanted: &Wanted) -> Result<Option<Found>, ReadError> {
        let mut base = self
            .state
            .borrow()
            .segment_of(wanted.start_offset)
            .map(|segment| segment.base_offset);
        while let Some(segment) = base {
            let reached = match self.read_segment(segment, wanted).await? {
                Segmental::Found(found) => return Ok(Some(found)),
                Segmental::Beyond => return Ok(None),
                Segmental::End(reached) => reached,
            };
            base = self
                .state
                .borrow()
                .segments
                .range(segment + 1..)
                .next()
                .map(|(base, _)| *base);
            if let Some(next) = base
                && reached < next
                && wanted.start_offset < next
            {
                return Err(self.corrupt(
                    wanted.start_offset,
                    format!(
                        "segment {segment} ends at offset {reached}, the next begins at {next}"
                    ),
                ));
            }
        }
        Ok(None)
    }

    fn wanted(
        &self,
        start_offset: i64,
        max_bytes: usize,
        min_one: bool,
        limit: ReadLimit,
    ) -> Result<Result<Wanted, ReadResult>, ReadError> {
        let state = self.state.borrow();
        let high_watermark = self.flush.high_watermark();
        let last_stable_offset = self.last_stable_offset();
        let limit = match limit {
            ReadLimit::HighWatermark => high_watermark,
            ReadLimit::LastStableOffset => last_stable_offset,
            ReadLimit::Flushed => self.flush.flushed(),
            ReadLimit::LogEnd => state.next_offset,
        };
        if start_offset < state.log_start || start_offset > state.next_offset {
            return Err(ReadError::OffsetOutOfRange {
                offset: start_offset,
                log_start_offset: state.log_start,
                limit,
                high_watermark,
                last_stable_offset,
            });
        }
        if start_offset >= limit {
            return Ok(Err(ReadResult {
                next_offset: start_offset,
                high_watermark,
                last_stable_offset,
                log_start_offset: state.log_start,
                ..ReadResult::default()
            }));
        }
        Ok(Ok(Wanted {
            start_offset,
            limit,
            max_bytes,
            min_one,
        }))
    }

    /// Reads from one segment.
    async fn read_segment(&self, base: i64, wanted: &Wanted) -> Result<Segmental, ReadError> {
        let replacements = self.replacements.get();
        let mut entry = self.index_entry(base, wanted.start_offset).await?;
        let mut position = u64::from(entry.position);
        let mut floor = base;
        let mut rebuilt = false;
        loop {
            let place = Place {
                segment: base,
                position,
            };
            let last_offset =
                (position > 0 && position == u64::from(entry.position)).then_some(entry.offset);
            let step = if self.state.borrow().tail.holds(place) {
                self.read_tail(base, position, floor, last_offset, wanted)
            } else {
                self.read_cold(base, position, floor, last_offset, wanted)
                    .await?
            };
            match step {
                Step::Found(found) => return Ok(Segmental::Found(found)),
                Step::Beyond => return Ok(Segmental::Beyond),
                Step::Nothing(reached) => return Ok(Segmental::End(reached)),
                Step::GoOn(next, reached) => (position, floor) = (next, reached),
                // Nothing is wrong with it: it lies elsewhere now, and the read starts again.
                Step::NoBatch(_) if self.replacements.get() != replacements => {
                    return Ok(Segmental::Beyond);
                }
                Step::NoBatch(reason) if rebuilt || last_offset.is_none() => {
                    return Err(self.corrupt(
                        wanted.start_offset,
                        format!("{reason} at position {position} of segment {base}"),
                    ));
                }
                Step::NoBatch(reason) => {
                    tracing::warn!(log = %self.topic_partition, segment = base, "the offset index points to no such batch ({reason}): rebuilding it");
                    self.rebuild_indexes(base).await?;
                    rebuilt = true;
                    entry = self.index_entry(base, wanted.start_offset).await?;
                    (position, floor) = (u64::from(entry.position), base);
                }
            }
        }
    }

    pub(super) fn corrupt(&self, offset: i64, reason: String) -> ReadError {
        ReadError::Corrupt {
            log: self.topic_partition.to_string(),
            offset,
            reason,
        }
    }

    fn read_tail(
        &self,
        base: i64,
        mut position: u64,
        floor: i64,
        last_offset: Option<i64>,
        wanted: &Wanted,
    ) -> Step {
        let state = self.state.borrow();
        let size = state.segments.get(&base).map_or(0, |segment| segment.size);
        let mut run = Run::from(floor);
        let mut raw = [0; HEADER_BYTES];
        let mut says = last_offset;
        while position < size && state.tail.copy(base, position, &mut raw) {
            let header = match BatchHeader::parse(&raw) {
                Ok(header) => header,
                Err(error) => return Step::NoBatch(error.to_string()),
            };
            if says.take().is_some_and(|last| last != header.last_offset()) {
                return Step::NoBatch("the batch ends at another offset".into());
            }
            if !run.take(&header, position, wanted) {
                break;
            }
            position += header.size() as u64;
        }
        match run.first {
            Some((first, start)) => Step::Found((
                state.tail.bytes(base, start..run.end),
                Some(first),
                run.next_offset,
            )),
            None if run.full => Step::Found((Vec::new(), None, wanted.start_offset)),
            None if run.beyond => Step::Beyond,
            None => Step::Nothing(run.floor),
        }
    }

    async fn read_cold(
        &self,
        base: i64,
        position: u64,
        floor: i64,
        last_offset: Option<i64>,
        wanted: &Wanted,
    ) -> Result<Step, ReadError> {
        let bounds = {
            let state = self.state.borrow();
            let next = state.segments.range(base + 1..).next();
            match state.segments.get(&base) {
                Some(segment) if position < segment.written => Bounds {
                    position,
                    floor,
                    last_offset,
                    ceiling: next.map_or(state.next_offset, |(next, _)| *next),
                    size: segment.size,
                    written: segment.written,
                },
                Some(segment) if position > segment.size => {
                    return Ok(Step::NoBatch("the segment ends before".into()));
                }
                _ => return Ok(Step::Nothing(floor)),
            }
        };
        let written = bounds.written;
        let aligned = position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let skip = (position - aligned) as usize;
        let mut step = round_up(
            wanted
                .max_bytes
                .saturating_add(skip)
                .clamp(STEP_BYTES_MIN, STEP_BYTES),
        );
        loop {
            let bytes = self.read_file(base, aligned, step, written).await?;
            let mut run = Run::from(floor);
            let stop = run.scan(&bytes, aligned, &bounds, wanted);
            if let Some((first, start)) = run.first {
                let range = (start - aligned) as usize..(run.end - aligned) as usize;
                return Ok(Step::Found((
                    vec![bytes.slice(range)],
                    Some(first),
                    run.next_offset,
                )));
            }
            return Ok(match stop {
                Stop::Limit if run.full => Step::Found((Vec::new(), None, wanted.start_offset)),
                Stop::Limit => Step::Beyond,
                // What follows, if anything, is in the tail.
                Stop::End(at) => Step::GoOn(at, run.floor),
                Stop::NoBatch(at, reason) if at == position => Step::NoBatch(reason),
                Stop::NoBatch(at, reason) => {
                    return Err(self.corrupt(
                        wanted.start_offset,
                        format!("{reason} at position {at} of segment {base}"),
                    ));
                }
                Stop::Short(at, _) if at > position => Step::GoOn(at, run.floor),
                Stop::Short(at, size) if at + size as u64 > written => {
                    // Of such a batch the file has all that the tail has not, and all of that must have been read.
                    let in_file = self.bytes_before_tail(base, at).unwrap_or(0);
                    if round_up(skip + in_file) > step {
                        step = round_up(skip + in_file);
                        continue;
                    }
                    self.read_straddling(base, &bounds, &bytes.slice(skip..), wanted)
                }
                Stop::Short(_, size) if round_up(skip + size) > step => {
                    step = round_up(skip + size);
                    continue;
                }
                Stop::Short(at, _) => {
                    Step::NoBatch(format!("the file ends before the batch at {at} does"))
                }
            });
        }
    }

    /// Reads the one batch that begins in the file (with the bytes in `head`) and ends in the tail.
    fn read_straddling(&self, base: i64, bounds: &Bounds, head: &Bytes, wanted: &Wanted) -> Step {
        let position = bounds.position;
        let (header, head_len) = match self.straddling_header(base, position, head) {
            Straddling::Batch(header, head_len) => (header, head_len),
            // The tail has changed meanwhile: look again.
            Straddling::Gone => return Step::GoOn(position, bounds.floor),
            Straddling::Damaged(reason) => return Step::NoBatch(reason),
        };
        if let Some(reason) = bounds.refuse(&header, position, bounds.floor) {
            return Step::NoBatch(reason);
        }
        let mut run = Run::from(bounds.floor);
        if !run.take(&header, position, wanted) {
            return if run.full {
                Step::Found((Vec::new(), None, wanted.start_offset))
            } else {
                Step::Beyond
            };
        }
        let end = position + header.size() as u64;
        if run.first.is_none() {
            return Step::GoOn(end, run.floor);
        }
        let mut pieces = vec![head.slice(..head_len)];
        let state = self.state.borrow();
        pieces.extend(state.tail.bytes(base, position + head_len as u64..end));
        Step::Found((pieces, Some(header.base_offset), header.next_offset()))
    }

    /// How many bytes of a segment lie from `position` to where the tail begins, if it begins later in the same segment.
    pub(super) fn bytes_before_tail(&self, base: i64, position: u64) -> Option<usize> {
        let start = self.state.borrow().tail.start()?;
        let before = start.position.checked_sub(position)? as usize;
        (start.segment == base && before > 0).then_some(before)
    }

    /// The header of the batch at `position`, of which `head` is in the file and the rest in the tail.
    pub(super) fn straddling_header(&self, base: i64, position: u64, head: &[u8]) -> Straddling {
        let Some(head_len) = self
            .bytes_before_tail(base, position)
            .filter(|head_len| *head_len <= head.len())
        else {
            return Straddling::Gone;
        };
        let state = self.state.borrow();
        let mut raw = [0; HEADER_BYTES];
        let from_head = head_len.min(HEADER_BYTES);
        raw[..from_head].copy_from_slice(&head[..from_head]);
        let rest = &mut raw[from_head..];
        if !state.tail.copy(base, position + head_len as u64, rest) {
            return Straddling::Gone;
        }
        match BatchHeader::parse(&raw) {
            Ok(header) if head_len < header.size() => Straddling::Batch(header, head_len),
            Ok(_) => Straddling::Damaged("a batch ends before the tail begins".into()),
            Err(error) => Straddling::Damaged(error.to_string()),
        }
    }
}

/// What reading from one segment came to.
enum Segmental {
    Found(Found),
    /// Nothing at or after the offset is in it; its batches end at this offset.
    End(i64),
    /// The next batch lies beyond the limit.
    Beyond,
}

/// What one step of that came to.
enum Step {
    Found(Found),
    /// The segment ends, and its batches at this offset.
    Nothing(i64),
    /// Go on from this position, where no batch begins before this offset.
    GoOn(u64, i64),
    /// The next batch lies beyond the limit.
    Beyond,
    /// There is no such batch where one should be.
    NoBatch(String),
}

/// A batch that begins in the file and ends in the tail.
pub(super) enum Straddling {
    /// Its header, and how many of its bytes come before the tail.
    Batch(BatchHeader, usize),
    /// The tail does not hold its end any more: the file does.
    Gone,
    /// It is none.
    Damaged(String),
}
