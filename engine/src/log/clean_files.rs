//! The files of a pass: batches read from a sealed segment one after the other, and the segment that what stays is written to.
//!
//! A batch that does not match its checksum, or whose offsets do not follow, ends the pass: damage is never copied. Memory is a reading and a writing buffer, and the one batch at hand
//! when that is larger.

use std::ops::Range;

use bytes::Bytes;

use super::Log;
use super::clean::{CleanFailure, uncleanable};
use super::swap::cleaned_path;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::environment::Environment;
use crate::index::{AbortedTransaction, SegmentIndexes};
use crate::memory::{AlignedBuffer, BLOCK_BYTES, MemoryPool, round_up};
use crate::segment::{SEGMENT_BYTES_LIMIT, index_settings};

/// Buffers are at least so large, whatever is configured.
const BUFFER_BYTES_MIN: usize = 16 * BLOCK_BYTES;
/// Space is reserved in ever larger steps, of at most so many bytes.
const RESERVE_BYTES: u64 = 8 << 20;

/// Reads a segment's batches in order.
pub(super) struct SegmentReader<E: Environment> {
    file: <E::Disk as Disk>::File,
    pool: MemoryPool,
    step: usize,
    /// The offsets that its batches may have; begins where the next one may.
    offsets: Range<i64>,
    size: u64,
    position: u64,
    bytes: Bytes,
    bytes_at: u64,
}

impl<E: Environment> SegmentReader<E> {
    /// Over `size` bytes of a segment's file, from the batch at `position` on.
    pub fn new(
        file: <E::Disk as Disk>::File,
        pool: MemoryPool,
        step: usize,
        offsets: Range<i64>,
        size: u64,
        position: u64,
    ) -> Self {
        Self {
            file,
            pool,
            step: round_up(step.max(BUFFER_BYTES_MIN)),
            offsets,
            size,
            position,
            bytes: Bytes::new(),
            bytes_at: 0,
        }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether there is no further batch.
    pub fn is_at_end(&self) -> bool {
        self.position >= self.size
    }

    /// The next batch.
    pub async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, CleanFailure> {
        if self.is_at_end() {
            return Ok(None);
        }
        self.fill(HEADER_BYTES).await?;
        let header = BatchHeader::parse(self.rest()).map_err(|error| self.damaged(error))?;
        self.fill(header.size()).await?;
        let at = (self.position - self.bytes_at) as usize;
        let batch = self.bytes.slice(at..at + header.size());
        if !header.checksum_matches(&batch) {
            return Err(self.damaged("a batch does not match its checksum"));
        }
        if header.base_offset < self.offsets.start || header.next_offset() > self.offsets.end {
            return Err(self.damaged(format!(
                "a batch of offsets {}..{} does not lie in {:?}",
                header.base_offset,
                header.next_offset(),
                self.offsets
            )));
        }
        self.offsets.start = header.next_offset();
        self.position += header.size() as u64;
        Ok(Some((header, batch)))
    }

    fn rest(&self) -> &[u8] {
        let at = self.position.checked_sub(self.bytes_at);
        let rest = at.and_then(|at| self.bytes.get(at as usize..));
        rest.unwrap_or_default()
    }

    /// Makes sure that at least `count` bytes from the position on are in memory.
    async fn fill(&mut self, count: usize) -> Result<(), CleanFailure> {
        if self.rest().len() >= count {
            return Ok(());
        }
        if self.position + count as u64 > self.size {
            return Err(self.damaged("the segment ends within a batch"));
        }
        let block = BLOCK_BYTES as u64;
        let aligned = self.position / block * block;
        let skip = (self.position - aligned) as usize;
        let left = (self.size - aligned) as usize;
        let len = round_up(skip + count).max(self.step).min(round_up(left));
        self.bytes = Bytes::new();
        let buffer = self.pool.buffer(len);
        let (mut buffer, read) = self.file.read_at(aligned, buffer, len).await?;
        buffer.truncate(read.min(left));
        self.bytes = buffer.into_bytes();
        self.bytes_at = aligned;
        if self.rest().len() < count {
            return Err(self.damaged("the file is shorter than the segment"));
        }
        Ok(())
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> CleanFailure {
        uncleanable(format!("{reason} at position {}", self.position))
    }
}

/// A segment in the making.
pub(super) struct Output<E: Environment> {
    base: i64,
    file: <E::Disk as Disk>::File,
    buffer: AlignedBuffer,
    /// Where the buffer's bytes go.
    buffer_at: u64,
    size: u64,
    reserved: u64,
    indexes: SegmentIndexes,
}

/// A segment that is complete and synced, under a name of its own.
pub(super) struct SealedOutput<E: Environment> {
    /// Its base offset.
    pub base: i64,
    /// Its open file.
    pub file: <E::Disk as Disk>::File,
    /// Bytes of batches.
    pub size: u64,
    /// Its indexes, sealed.
    pub indexes: SegmentIndexes,
}

impl<E: Environment> Log<E> {
    /// Begins a segment at `base`.
    pub(super) async fn begin_output(
        &self,
        base: i64,
        truncations: u64,
    ) -> Result<Output<E>, CleanFailure> {
        // A file made after the directory was renamed would turn up in the next log of the same name.
        let _io = self.io.enter().await;
        self.check_cleanable(truncations)?;
        let path = cleaned_path(&self.path(), base, "log");
        let file = self
            .shard
            .env
            .disk()
            .open(&path, OpenOptions::SEGMENT)
            .await?;
        file.set_len(0).await?;
        let bytes = self.shard.config.cleaner_io_buffer_bytes / 2;
        Ok(Output {
            base,
            file,
            buffer: self
                .shard
                .pool
                .buffer(round_up(bytes.max(BUFFER_BYTES_MIN))),
            buffer_at: 0,
            size: 0,
            reserved: 0,
            indexes: SegmentIndexes::new(base, index_settings(&self.config())),
        })
    }
}

impl<E: Environment> Output<E> {
    /// Appends a batch.
    pub async fn push(
        &mut self,
        log: &Log<E>,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<(), CleanFailure> {
        if self.size + batch.len() as u64 > SEGMENT_BYTES_LIMIT {
            return Err(uncleanable(
                "what stays of a segment is larger than a segment can be",
            ));
        }
        self.indexes
            .on_append(header, self.size as u32)
            .map_err(uncleanable)?;
        let mut rest = batch;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.buffer.remaining()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.remaining() == 0 {
                self.flush(log).await?;
            }
        }
        self.size += batch.len() as u64;
        Ok(())
    }

    async fn flush(&mut self, log: &Log<E>) -> Result<(), CleanFailure> {
        let capacity = self.buffer.capacity();
        let full = std::mem::replace(&mut self.buffer, log.shard.pool.buffer(capacity));
        let bytes = full.into_aligned_slice();
        let end = self.buffer_at + bytes.len() as u64;
        if end > self.reserved {
            // Space for what will be smaller is taken like space for new records: not from what is kept back.
            if !log.shard.restore_ballast(log.directory).await {
                return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
            }
            let step = (end - self.reserved).max(self.reserved.min(RESERVE_BYTES));
            self.file.allocate(self.reserved, step, true).await?;
            self.reserved += step;
        }
        self.file.write_at(self.buffer_at, vec![bytes]).await?;
        self.buffer_at = end;
        Ok(())
    }

    /// Writes what is left, gives the file its size and syncs it.
    pub async fn finish(
        mut self,
        log: &Log<E>,
        aborted: &[AbortedTransaction],
    ) -> Result<SealedOutput<E>, CleanFailure> {
        if !self.buffer.is_empty() {
            self.flush(log).await?;
        }
        self.file.set_len(self.size).await?;
        self.file.sync_data().await?;
        for transaction in aborted {
            self.indexes
                .transactions
                .append(*transaction)
                .map_err(uncleanable)?;
        }
        match self.indexes.seal() {
            // Lookups by time go on from the last entry there is.
            Ok(()) | Err(crate::index::IndexError::Full { .. }) => {}
            Err(error) => return Err(uncleanable(error)),
        }
        Ok(SealedOutput {
            base: self.base,
            file: self.file,
            size: self.size,
            indexes: self.indexes,
        })
    }
}
