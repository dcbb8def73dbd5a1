//! Reading: whole batches from the tail's chunks without a copy, or from the segment files by direct reads of at most a mebibyte.
//!
//! The place of an offset comes from the segment's offset index, which is a hint: the batch header found there must agree, else the index is rebuilt. Nothing beyond the
//! limit is served. A read that was overtaken by a truncation starts again.

use std::io;

use bytes::Bytes;

use super::flush::Place;
use super::{Log, ReadError, ReadLimit, ReadResult};
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::DiskFile;
use crate::environment::Environment;
use crate::index::SegmentIndexes;
use crate::memory::{BLOCK_BYTES, round_up};
use crate::segment::{index_settings, read_indexes, write_indexes};

/// Bytes read from a file in one step, unless a single batch is larger.
const STEP_BYTES: usize = 1 << 20;
/// Bytes read from a file at least: what lies between two index entries and more.
const STEP_BYTES_MIN: usize = 64 << 10;

/// What a read is after.
#[derive(Clone, Copy)]
struct Wanted {
    start_offset: i64,
    limit: i64,
    max_bytes: usize,
    min_one: bool,
}

/// A run of whole batches in one segment.
#[derive(Default)]
struct Run {
    first: Option<(i64, u64)>,
    end: u64,
    next_offset: i64,
    /// The run is complete: the next batch is beyond a limit.
    full: bool,
}

impl Run {
    /// Takes the next batch in or notes why not; false when there is nothing more to take.
    fn take(&mut self, header: &BatchHeader, position: u64, wanted: &Wanted) -> bool {
        if header.next_offset() > wanted.limit {
            self.full = true;
            return false;
        }
        if header.last_offset() < wanted.start_offset {
            return true;
        }
        let start = self.first.map_or(position, |(_, start)| start);
        let bytes = (position - start) as usize + header.size();
        let allowed = bytes <= wanted.max_bytes || (self.first.is_none() && wanted.min_one);
        if !allowed {
            self.full = true;
            return false;
        }
        self.first.get_or_insert((header.base_offset, position));
        self.end = position + header.size() as u64;
        self.next_offset = header.next_offset();
        true
    }
}

/// Why a scan over bytes from a file ended, and where.
enum Stop {
    /// What was wanted is complete.
    Limit,
    /// Everything written was seen, up to here.
    End(u64),
    /// The batch at this position has at least so many bytes, more than were read.
    Short(u64, usize),
    /// What is at this position is no batch.
    NoBatch(u64, String),
}

impl Run {
    /// Takes in the batches of `bytes`, which begin at `start` of the segment, from `position` on.
    fn scan(
        &mut self,
        bytes: &[u8],
        start: u64,
        position: u64,
        written: u64,
        wanted: &Wanted,
    ) -> Stop {
        let mut at = position;
        while at < written {
            let rest = bytes.get((at - start) as usize..).unwrap_or_default();
            if rest.len() < HEADER_BYTES {
                return Stop::Short(at, HEADER_BYTES);
            }
            let header = match BatchHeader::parse(rest) {
                Ok(header) => header,
                Err(error) => return Stop::NoBatch(at, error.to_string()),
            };
            if rest.len() < header.size() {
                return Stop::Short(at, header.size());
            }
            if !self.take(&header, at, wanted) {
                return Stop::Limit;
            }
            at += header.size() as u64;
        }
        Stop::End(at)
    }
}

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
            let wanted = match self.wanted(start_offset, max_bytes, min_one, limit)? {
                Ok(wanted) => wanted,
                Err(empty) => return Ok(empty),
            };
            let mut base = self
                .state
                .borrow()
                .segment_of(start_offset)
                .map(|segment| segment.base_offset);
            let mut found = None;
            while let Some(segment) = base {
                found = self.read_segment(segment, &wanted).await?;
                if found.is_some() || self.flush.truncations() != truncations {
                    break;
                }
                // The offset lies in a gap at the segment's end.
                base = self
                    .state
                    .borrow()
                    .segments
                    .range(segment + 1..)
                    .next()
                    .map(|(base, _)| *base);
            }
            if self.flush.truncations() != truncations {
                continue;
            }
            let (pieces, first, next_offset) = found.unwrap_or((Vec::new(), None, start_offset));
            return Ok(ReadResult {
                pieces,
                first_base_offset: first,
                next_offset,
                high_watermark: self.high_watermark(),
                log_start_offset: self.log_start_offset(),
            });
        }
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
        let limit = match limit {
            ReadLimit::HighWatermark => high_watermark,
            ReadLimit::Flushed => self.flush.flushed(),
            ReadLimit::LogEnd => state.next_offset,
        };
        if start_offset < state.log_start || start_offset > state.next_offset {
            return Err(ReadError::OffsetOutOfRange {
                offset: start_offset,
                log_start_offset: state.log_start,
                limit,
                high_watermark,
            });
        }
        if start_offset >= limit {
            return Ok(Err(ReadResult {
                next_offset: start_offset,
                high_watermark,
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

    /// Reads from one segment; `None` when nothing at or after the offset lies in it.
    async fn read_segment(
        &self,
        base: i64,
        wanted: &Wanted,
    ) -> Result<Option<(Vec<Bytes>, Option<i64>, i64)>, ReadError> {
        let mut position = self.position_hint(base, wanted.start_offset).await?;
        let mut rebuilt = false;
        loop {
            let place = Place {
                segment: base,
                position,
            };
            if self.state.borrow().tail.holds(place) {
                return Ok(self.read_tail(base, position, wanted));
            }
            match self.read_cold(base, position, wanted).await? {
                Cold::Found(found) => return Ok(Some(found)),
                Cold::Nothing => return Ok(None),
                Cold::GoOn(next) => position = next,
                Cold::NoBatch(reason) if rebuilt => {
                    return Err(self.corrupt(
                        wanted.start_offset,
                        format!("{reason} at position {position} of segment {base}"),
                    ));
                }
                Cold::NoBatch(reason) => {
                    tracing::warn!(log = %self.topic_partition, segment = base, "the offset index points to no batch ({reason}): rebuilding it");
                    self.rebuild_indexes(base).await?;
                    rebuilt = true;
                    position = self.position_hint(base, wanted.start_offset).await?;
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

    /// A position at or before the batch that contains `offset`.
    pub(super) async fn position_hint(&self, base: i64, offset: i64) -> Result<u64, ReadError> {
        self.load_indexes(base).await?;
        let state = self.state.borrow();
        let indexes = state
            .segments
            .get(&base)
            .and_then(|segment| segment.indexes.as_ref());
        Ok(indexes.map_or(0, |indexes| {
            u64::from(indexes.offsets.lookup(offset).position)
        }))
    }

    fn read_tail(
        &self,
        base: i64,
        mut position: u64,
        wanted: &Wanted,
    ) -> Option<(Vec<Bytes>, Option<i64>, i64)> {
        let state = self.state.borrow();
        let size = state.segments.get(&base)?.size;
        let mut run = Run::default();
        let mut raw = [0; HEADER_BYTES];
        while position < size && state.tail.copy(base, position, &mut raw) {
            let Ok(header) = BatchHeader::parse(&raw) else {
                break;
            };
            if !run.take(&header, position, wanted) {
                break;
            }
            position += header.size() as u64;
        }
        match run.first {
            Some((first, start)) => Some((
                state.tail.bytes(base, start..run.end),
                Some(first),
                run.next_offset,
            )),
            None if run.full => Some((Vec::new(), None, wanted.start_offset)),
            None => None,
        }
    }

    async fn read_cold(
        &self,
        base: i64,
        position: u64,
        wanted: &Wanted,
    ) -> Result<Cold, ReadError> {
        let written = match self.state.borrow().segments.get(&base) {
            Some(segment) if position < segment.written => segment.written,
            _ => return Ok(Cold::Nothing),
        };
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
            let mut run = Run::default();
            let stop = run.scan(&bytes, aligned, position, written, wanted);
            if let Some((first, start)) = run.first {
                let range = (start - aligned) as usize..(run.end - aligned) as usize;
                return Ok(Cold::Found((
                    vec![bytes.slice(range)],
                    Some(first),
                    run.next_offset,
                )));
            }
            return Ok(match stop {
                Stop::Limit => Cold::Found((Vec::new(), None, wanted.start_offset)),
                // What follows, if anything, is in the tail.
                Stop::End(at)
                    if self
                        .state
                        .borrow()
                        .segments
                        .get(&base)
                        .is_some_and(|segment| at < segment.size) =>
                {
                    Cold::GoOn(at)
                }
                Stop::End(_) => Cold::Nothing,
                Stop::NoBatch(at, reason) if at == position => Cold::NoBatch(reason),
                Stop::NoBatch(at, reason) => {
                    return Err(self.corrupt(
                        wanted.start_offset,
                        format!("{reason} at position {at} of segment {base}"),
                    ));
                }
                Stop::Short(at, _) if at > position => Cold::GoOn(at),
                Stop::Short(at, size) if at + size as u64 > written => {
                    // Of such a batch the file has all that the tail has not, and all of that must have been read.
                    let in_file = self.bytes_before_tail(base, at).unwrap_or(0);
                    if round_up(skip + in_file) > step {
                        step = round_up(skip + in_file);
                        continue;
                    }
                    self.read_straddling(base, at, &bytes.slice(skip..), wanted)
                }
                Stop::Short(_, size) if round_up(skip + size) > step => {
                    step = round_up(skip + size);
                    continue;
                }
                Stop::Short(at, _) => {
                    Cold::NoBatch(format!("the file ends before the batch at {at} does"))
                }
            });
        }
    }

    /// Reads the one batch at `position` that begins in the file (with the bytes in `head`) and ends in the tail.
    fn read_straddling(&self, base: i64, position: u64, head: &Bytes, wanted: &Wanted) -> Cold {
        let Some((header, head_len)) = self.straddling_header(base, position, head) else {
            // The tail has changed meanwhile: look again.
            return Cold::GoOn(position);
        };
        let mut run = Run::default();
        if !run.take(&header, position, wanted) {
            return Cold::Found((Vec::new(), None, wanted.start_offset));
        }
        let end = position + header.size() as u64;
        if run.first.is_none() {
            return Cold::GoOn(end);
        }
        let mut pieces = vec![head.slice(..head_len)];
        let state = self.state.borrow();
        pieces.extend(state.tail.bytes(base, position + head_len as u64..end));
        Cold::Found((pieces, Some(header.base_offset), header.next_offset()))
    }

    /// Reads up to `len` bytes of a segment's file from a block boundary, cut at `end`.
    pub(crate) async fn read_file(
        &self,
        base: i64,
        aligned: u64,
        len: usize,
        end: u64,
    ) -> Result<Bytes, ReadError> {
        let failed =
            |error: &io::Error| ReadError::Log(self.storage_error("reading a segment", error));
        let file = self
            .open_segment(base)
            .await
            .map_err(|error| failed(&error))?;
        let len = len.min(round_up((end - aligned) as usize));
        let buffer = self.shard.pool.buffer(len);
        let (mut buffer, read) = file
            .read_at(aligned, buffer, len)
            .await
            .map_err(|error| failed(&error))?;
        buffer.truncate(read.min((end - aligned) as usize));
        Ok(buffer.into_bytes())
    }

    /// Makes sure that a segment's indexes are in memory.
    pub(super) async fn load_indexes(&self, base: i64) -> Result<(), ReadError> {
        let settings = {
            let state = self.state.borrow();
            match state.segments.get(&base) {
                Some(segment) if segment.indexes.is_none() => index_settings(&state.config),
                _ => return Ok(()),
            }
        };
        let used = self.shard.tick();
        let read = read_indexes(&self.shard.env, &self.path(), base, settings).await;
        match read
            .map_err(|error| ReadError::Log(self.storage_error("reading an index", &error)))?
        {
            Some(indexes) => {
                if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
                    segment.used = used;
                    segment.indexes.get_or_insert(indexes);
                }
                self.shard.indexes_loaded(self, base);
                Ok(())
            }
            None => self.rebuild_indexes(base).await,
        }
    }

    /// Makes a segment's indexes anew from its batches, and writes them when the segment is sealed.
    pub(super) async fn rebuild_indexes(&self, base: i64) -> Result<(), ReadError> {
        let (settings, sealed) = {
            let state = self.state.borrow();
            (
                index_settings(&state.config),
                state
                    .segments
                    .get(&base)
                    .is_some_and(|segment| segment.sealed),
            )
        };
        let mut indexes = SegmentIndexes::new(base, settings);
        let mut position = 0;
        loop {
            let next = self
                .walk(base, position, |header, at| {
                    indexes
                        .on_append(header, at as u32)
                        .map_err(|error| error.to_string())
                })
                .await?;
            if next == position {
                break;
            }
            position = next;
        }
        if sealed {
            let sealing = indexes.seal().map_err(|error| error.to_string());
            sealing.map_err(|reason| self.corrupt(base, reason))?;
            let encoded = crate::segment::EncodedIndexes::of(&indexes);
            write_indexes(&self.shard.env, &self.path(), base, encoded)
                .await
                .map_err(|error| ReadError::Log(self.storage_error("writing an index", &error)))?;
        }
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.indexes = Some(indexes);
        }
        self.shard.indexes_loaded(self, base);
        Ok(())
    }

    /// Feeds a segment's indexes with the batches from `position` on.
    pub(super) async fn feed_indexes(&self, base: i64, mut position: u64) -> Result<(), ReadError> {
        loop {
            let mut headers = Vec::new();
            let next = self.walk(base, position, |header, at| {
                headers.push((*header, at));
                Ok(())
            });
            let next = next.await?;
            if let Some(indexes) = self
                .state
                .borrow_mut()
                .segments
                .get_mut(&base)
                .and_then(|segment| segment.indexes.as_mut())
            {
                for (header, at) in &headers {
                    indexes
                        .on_append(header, *at as u32)
                        .map_err(|error| self.corrupt(header.base_offset, error.to_string()))?;
                }
            }
            if next == position {
                return Ok(());
            }
            position = next;
        }
    }

    /// Looks at the headers of the whole batches found in one step from `position` on; returns the position after them.
    pub(crate) async fn walk(
        &self,
        base: i64,
        position: u64,
        mut visit: impl FnMut(&BatchHeader, u64) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        let (size, written, in_tail) = {
            let state = self.state.borrow();
            match state.segments.get(&base) {
                Some(segment) => (
                    segment.size,
                    segment.written,
                    state.tail.holds(Place {
                        segment: base,
                        position,
                    }),
                ),
                None => return Ok(position),
            }
        };
        let mut at = position;
        if in_tail {
            let mut raw = [0; HEADER_BYTES];
            while at < size && self.state.borrow().tail.copy(base, at, &mut raw) {
                let header = BatchHeader::parse(&raw)
                    .map_err(|error| self.corrupt(base, error.to_string()))?;
                visit(&header, at).map_err(|reason| self.corrupt(header.base_offset, reason))?;
                at += header.size() as u64;
            }
            return Ok(at);
        }
        if at >= written {
            return Ok(at);
        }
        let aligned = at / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let bytes = self.read_file(base, aligned, STEP_BYTES, written).await?;
        while at < written {
            let rest = bytes.get((at - aligned) as usize..).unwrap_or_default();
            let header = if rest.len() >= HEADER_BYTES {
                BatchHeader::parse(rest)
                    .map_err(|error| self.corrupt(base, format!("{error} at position {at}")))?
            } else if aligned + (bytes.len() as u64) < written {
                break;
            } else {
                // The header goes on in the tail.
                match self.straddling_header(base, at, rest) {
                    Some((header, _)) => header,
                    None => break,
                }
            };
            if at + header.size() as u64 > size {
                break;
            }
            visit(&header, at).map_err(|reason| self.corrupt(header.base_offset, reason))?;
            at += header.size() as u64;
        }
        Ok(at)
    }

    /// How many bytes of a segment lie from `position` to where the tail begins, if it begins later in the same segment.
    fn bytes_before_tail(&self, base: i64, position: u64) -> Option<usize> {
        let start = self.state.borrow().tail.start()?;
        let before = start.position.checked_sub(position)? as usize;
        (start.segment == base && before > 0).then_some(before)
    }

    /// The header of the batch at `position`, of which `head` is in the file and the rest in the tail; and how many of its bytes come before the tail.
    fn straddling_header(
        &self,
        base: i64,
        position: u64,
        head: &[u8],
    ) -> Option<(BatchHeader, usize)> {
        let head_len = self.bytes_before_tail(base, position)?;
        if head_len > head.len() {
            return None;
        }
        let state = self.state.borrow();
        let mut raw = [0; HEADER_BYTES];
        let from_head = head_len.min(HEADER_BYTES);
        raw[..from_head].copy_from_slice(&head[..from_head]);
        let rest = &mut raw[from_head..];
        let whole = state.tail.copy(base, position + head_len as u64, rest);
        let header = whole.then(|| BatchHeader::parse(&raw).ok()).flatten()?;
        (head_len < header.size()).then_some((header, head_len))
    }
}

/// What a step of a cold read came to.
enum Cold {
    Found((Vec<Bytes>, Option<i64>, i64)),
    /// Nothing at or after the offset is in the segment's file.
    Nothing,
    /// Go on from this position.
    GoOn(u64),
    /// There is no batch where one should be.
    NoBatch(String),
}
