//! The tail of one log in memory: a run of chunks that ends where the log ends.
//!
//! Each chunk lies on block boundaries exactly as its bytes lie in the segment file, so journal, write-behind and readers use the same memory. Chunks leave from the
//! front only, and only once written behind. Pure: no I/O; the budget is kept by the shard.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::flush::Place;
use crate::memory::{
    AlignedSlice, BLOCK_BYTES, Chunk, ChunkWriter, HUGE_PAGE_BYTES, MemoryPool, round_up,
};

/// The smallest chunk: what an idle log keeps.
pub(crate) const CHUNK_BYTES_MIN: usize = BLOCK_BYTES;
/// The largest chunk, which is one piece of memory for a device.
pub(crate) const CHUNK_BYTES_MAX: usize = HUGE_PAGE_BYTES;

/// What a tail may let go of, of what is written behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetGo {
    /// Whole chunks before the last one.
    Chunks,
    /// All but the last, partial block, which the next append goes on in.
    AllButBlock,
    /// All: the next append has to read that block back.
    Everything,
}

struct TailChunk {
    /// Where the chunk's first byte lies; on a block boundary.
    start: Place,
    writer: ChunkWriter,
}

impl TailChunk {
    fn end(&self) -> Place {
        Place {
            position: self.start.position + self.writer.len() as u64,
            ..self.start
        }
    }
}

/// See the module.
pub(crate) struct Tail {
    chunks: VecDeque<TailChunk>,
    /// Capacity of the chunk to come, if the log stays busy.
    next_capacity: usize,
    /// The largest chunk that the shard's budget allows while so many logs share it.
    chunk_bytes_max: usize,
    capacity: usize,
    /// Bytes appended since the log was last found to cool down.
    appended: usize,
}

impl Tail {
    /// An empty tail.
    pub fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            next_capacity: 0,
            chunk_bytes_max: CHUNK_BYTES_MIN,
            capacity: 0,
            appended: 0,
        }
    }

    /// Fits the chunks to come to what was appended since this was last called: a log that has become slow takes small ones again.
    pub fn cool_down(&mut self) {
        self.next_capacity = round_up(self.appended / 4).min(self.next_capacity);
        self.appended = 0;
    }

    /// Bytes of memory it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where it begins; absent when it holds nothing.
    pub fn start(&self) -> Option<Place> {
        self.chunks.front().map(|chunk| chunk.start)
    }

    /// More memory needed for `length` bytes at `at`, as [`Tail::append`] will take it.
    pub fn growth_for(&self, at: Place, length: usize) -> usize {
        let (room, ragged) = match self.chunks.back() {
            Some(back) if back.end() == at => (back.writer.remaining(), 0),
            _ => (0, at.position as usize % BLOCK_BYTES),
        };
        if length <= room {
            return 0;
        }
        let mut rest = ragged + length - room;
        let mut growth = 0;
        let mut next = self.next_capacity;
        while rest > 0 {
            let capacity = self.chunk_capacity(next, rest);
            growth += capacity;
            rest = rest.saturating_sub(capacity);
            next = self.grown(capacity);
        }
        growth
    }

    /// Block pieces that a body of `length` bytes at `at` may be cut into, at most.
    pub fn pieces_for(&self, length: usize) -> usize {
        2 + length
            / self
                .next_capacity
                .clamp(CHUNK_BYTES_MIN, self.chunk_bytes_max)
    }

    /// Appends `pieces` at `at`, which is the tail's end, or the start of a segment, or (with an empty tail) the log's end; then `prefix` gives what
    /// its block holds before it.
    pub fn append(&mut self, pool: &MemoryPool, at: Place, prefix: &[u8], pieces: &[&[u8]]) {
        if self.chunks.back().is_none_or(|back| back.end() != at) {
            let ragged = at.position as usize % BLOCK_BYTES;
            assert_eq!(prefix.len(), ragged, "a chunk begins on a block boundary");
            let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
            self.add_chunk(
                pool,
                Place {
                    position: at.position - ragged as u64,
                    ..at
                },
                ragged + length,
            );
            if let Some(back) = self.chunks.back_mut() {
                back.writer.append(prefix);
            }
        }
        let mut rest: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.appended += rest;
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() {
                if let Some(back) = self.chunks.back_mut() {
                    let range = back.writer.append(piece);
                    piece = &piece[range.len()..];
                    rest -= range.len();
                    if piece.is_empty() {
                        break;
                    }
                    let end = back.end();
                    self.add_chunk(pool, end, rest);
                }
            }
        }
    }

    fn add_chunk(&mut self, pool: &MemoryPool, start: Place, rest: usize) {
        let capacity = self.chunk_capacity(self.next_capacity, rest);
        self.next_capacity = self.grown(capacity);
        let writer = pool.chunk(capacity);
        self.capacity += capacity;
        self.chunks.push_back(TailChunk { start, writer });
    }

    /// The chunks of one segment that overlap `range`, each with the part of it that does.
    fn overlapping(
        &self,
        segment: i64,
        range: Range<u64>,
    ) -> impl Iterator<Item = (&Chunk, Range<usize>)> {
        let first = self.chunks.partition_point(|chunk| {
            chunk.end()
                <= Place {
                    segment,
                    position: range.start,
                }
        });
        self.chunks
            .iter()
            .skip(first)
            .take_while(move |chunk| {
                chunk.start
                    < Place {
                        segment,
                        position: range.end,
                    }
            })
            .map(move |chunk| {
                let start = chunk.start.position;
                let from = range.start.max(start) - start;
                let to = range.end.min(start + chunk.writer.len() as u64) - start;
                (chunk.writer.chunk(), from as usize..to as usize)
            })
    }

    /// Whole blocks of a segment for the journal: `range` lies on block boundaries and in the tail.
    pub fn blocks(&self, segment: i64, range: Range<u64>) -> Vec<AlignedSlice> {
        if range.is_empty() {
            return Vec::new();
        }
        self.overlapping(segment, range)
            .map(|(chunk, part)| chunk.blocks(part))
            .collect()
    }

    /// What has to be written so that `range` of a segment is in its file: whole blocks, the last one padded with zeros.
    pub fn padded_blocks(&self, segment: i64, range: Range<u64>) -> Vec<AlignedSlice> {
        self.overlapping(segment, range)
            .flat_map(|(chunk, part)| chunk.padded_blocks(part))
            .collect()
    }

    /// A range of a segment as slices of the chunks.
    pub fn bytes(&self, segment: i64, range: Range<u64>) -> Vec<Bytes> {
        self.overlapping(segment, range)
            .map(|(chunk, part)| chunk.bytes(part))
            .collect()
    }

    /// Copies from a segment's position on into `out`; false when the tail does not hold all of it.
    pub fn copy(&self, segment: i64, position: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        for (chunk, part) in self.overlapping(segment, position..position + out.len() as u64) {
            out[done..done + part.len()].copy_from_slice(&chunk.as_slice()[part.clone()]);
            done += part.len();
        }
        done == out.len()
    }

    /// Whether it ends at `place`, so that what begins there needs no new chunk.
    pub fn ends_at(&self, place: Place) -> bool {
        self.chunks.back().is_some_and(|back| back.end() == place)
    }

    /// Whether it holds the byte at `place` and everything after it.
    pub fn holds(&self, place: Place) -> bool {
        self.start().is_some_and(|start| start <= place)
    }

    /// Lets go of the oldest chunk if everything in it lies before `written`, as `what` allows; returns the bytes of memory freed.
    pub fn evict(&mut self, pool: &MemoryPool, written: Place, what: LetGo) -> usize {
        let Some(front) = self.chunks.front() else {
            return 0;
        };
        let end = front.end();
        if end > written {
            return 0;
        }
        let before = self.capacity;
        if self.chunks.len() > 1 {
            self.capacity -= front.writer.chunk().capacity();
            self.chunks.pop_front();
            return before - self.capacity;
        }
        let block = match what {
            LetGo::Chunks => return 0,
            LetGo::AllButBlock if before <= CHUNK_BYTES_MIN => return 0,
            LetGo::AllButBlock => self.block_prefix(end),
            LetGo::Everything => None,
        };
        self.clear();
        if let Some(prefix) = block.filter(|prefix| !prefix.is_empty()) {
            let start = Place {
                position: end.position - prefix.len() as u64,
                ..end
            };
            self.append(pool, start, &[], &[&prefix]);
        }
        before - self.capacity
    }

    /// Bounds the chunks to come, so that logs which share a budget cannot fill it with room that they do not use.
    pub fn set_chunk_bytes_max(&mut self, bytes: usize) {
        self.chunk_bytes_max = bytes;
    }

    /// The bytes of the block that `end` lies in, before it; `None` when the tail does not hold them.
    pub fn block_prefix(&self, end: Place) -> Option<Vec<u8>> {
        let ragged = end.position as usize % BLOCK_BYTES;
        let mut prefix = vec![0; ragged];
        (ragged == 0 || self.copy(end.segment, end.position - ragged as u64, &mut prefix))
            .then_some(prefix)
    }

    /// Forgets everything from `end` on; what the last block holds before `end` is copied, because a chunk's bytes never change.
    pub fn truncate(&mut self, pool: &MemoryPool, end: Place) {
        let prefix = self.block_prefix(end);
        let block = Place {
            position: end.position - end.position % BLOCK_BYTES as u64,
            ..end
        };
        while self.chunks.back().is_some_and(|back| back.start >= block) {
            if let Some(chunk) = self.chunks.pop_back() {
                self.capacity -= chunk.writer.chunk().capacity();
            }
        }
        if self.chunks.back().is_some_and(|back| back.end() > block) {
            // The chunk goes on past the new end: what stays of it is copied.
            if let Some(chunk) = self.chunks.pop_back() {
                self.capacity -= chunk.writer.chunk().capacity();
                let keep = (block.position - chunk.start.position) as usize;
                let bytes = chunk.writer.chunk().as_slice()[..keep].to_vec();
                self.append(pool, chunk.start, &[], &[&bytes]);
            }
        }
        match prefix {
            Some(prefix) if !prefix.is_empty() => self.append(pool, block, &[], &[&prefix]),
            _ => {}
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.capacity = 0;
        self.next_capacity = 0;
    }

    fn chunk_capacity(&self, next: usize, rest: usize) -> usize {
        round_up(rest)
            .max(next)
            .clamp(CHUNK_BYTES_MIN, self.chunk_bytes_max)
    }

    fn grown(&self, capacity: usize) -> usize {
        (capacity * 4).min(self.chunk_bytes_max)
    }
}
