//! Scans bytes from a segment's file for the batches that a read is after; what does not lie between its neighbours is no batch.

use crate::batch::{BatchHeader, HEADER_BYTES};

/// What a read is after.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) start_offset: i64,
    pub(super) limit: i64,
    pub(super) max_bytes: usize,
    pub(super) min_one: bool,
}

/// A run of whole batches in one segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    pub(super) first: Option<(i64, u64)>,
    pub(super) end: u64,
    pub(super) next_offset: i64,
    /// No batch from here on may begin before this offset.
    pub(super) floor: i64,
    /// The run is complete: the next batch would be too much.
    pub(super) full: bool,
    /// The run is complete: the next batch lies beyond the limit.
    pub(super) beyond: bool,
}

impl Run {
    pub(super) fn from(floor: i64) -> Self {
        Self {
            floor,
            ..Self::default()
        }
    }

    /// Takes the next batch in or notes why not; false when there is nothing more to take.
    pub(super) fn take(&mut self, header: &BatchHeader, position: u64, wanted: &Wanted) -> bool {
        if header.next_offset() > wanted.limit {
            self.beyond = true;
            return false;
        }
        self.floor = header.next_offset();
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

/// Where a scan of a segment's file begins, and within which bounds its batches must lie.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) position: u64,
    /// No batch from `position` on begins before this offset.
    pub(super) floor: i64,
    /// What the index says of the batch at `position`.
    pub(super) last_offset: Option<i64>,
    /// Offset after the last batch that the segment can hold.
    pub(super) ceiling: i64,
    /// The segment's bytes, and how many of them are in the file.
    pub(super) size: u64,
    pub(super) written: u64,
}

impl Bounds {
    /// Why the batch at `at` cannot be what was written there.
    pub(super) fn refuse(&self, header: &BatchHeader, at: u64, floor: i64) -> Option<String> {
        if at + header.size() as u64 > self.size {
            return Some(format!(
                "a batch of {} bytes is longer than what is left of the segment",
                header.size()
            ));
        }
        if header.base_offset < floor || header.next_offset() > self.ceiling {
            return Some(format!(
                "a batch of offsets {}..{} does not lie in {floor}..{}",
                header.base_offset,
                header.next_offset(),
                self.ceiling
            ));
        }
        match self.last_offset {
            Some(last) if at == self.position && header.last_offset() != last => Some(format!(
                "a batch ends at offset {}, the index says {last}",
                header.last_offset()
            )),
            _ => None,
        }
    }
}

/// Why a scan over bytes from a file ended, and where.
pub(super) enum Stop {
    /// What was wanted is complete.
    Limit,
    /// Everything written was seen, up to here.
    End(u64),
    /// The batch at this position has at least so many bytes, more than were read.
    Short(u64, usize),
    /// What is at this position is not the batch that was written there.
    NoBatch(u64, String),
}

impl Run {
    /// Takes in the batches of `bytes`, which begin at `start` of the segment.
    pub(super) fn scan(
        &mut self,
        bytes: &[u8],
        start: u64,
        bounds: &Bounds,
        wanted: &Wanted,
    ) -> Stop {
        let mut at = bounds.position;
        // The batch before `at`, and the run without it.
        let mut last: Option<(BatchHeader, usize)> = None;
        let mut without_last = *self;
        while at < bounds.written {
            let rest = bytes.get((at - start) as usize..).unwrap_or_default();
            if rest.len() < HEADER_BYTES {
                break;
            }
            let header = match BatchHeader::parse(rest) {
                Ok(header) => header,
                Err(error) => {
                    // Either this one is damaged or the length of the one before.
                    if last.is_some_and(|(last, from)| !is_whole(&last, bytes, from)) {
                        *self = without_last;
                    }
                    return Stop::NoBatch(at, error.to_string());
                }
            };
            if let Some(reason) = bounds.refuse(&header, at, self.floor) {
                // Either this one's offset or length is damaged or that of the one before.
                *self = without_last;
                return Stop::NoBatch(at, reason);
            }
            if rest.len() < header.size() {
                return Stop::Short(at, header.size());
            }
            without_last = *self;
            if !self.take(&header, at, wanted) {
                return Stop::Limit;
            }
            last = Some((header, (at - start) as usize));
            at += header.size() as u64;
        }
        // No header follows that would show that the last batch's length is right.
        if last.is_some_and(|(last, from)| !is_whole(&last, bytes, from)) {
            *self = without_last;
            return Stop::NoBatch(at, "the batch before does not match its checksum".into());
        }
        if at >= bounds.written {
            Stop::End(at)
        } else if at + HEADER_BYTES as u64 <= bounds.size {
            Stop::Short(at, HEADER_BYTES)
        } else {
            Stop::NoBatch(at, "the segment ends within a batch's header".into())
        }
    }
}

/// Whether the batch at `from` matches its checksum.
fn is_whole(header: &BatchHeader, bytes: &[u8], from: usize) -> bool {
    let batch = bytes.get(from..from + header.size());
    batch.is_some_and(|batch| header.checksum_matches(batch))
}
