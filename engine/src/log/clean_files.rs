//! The files of a pass: batches read from a sealed segment one after the other, and the segment that what stays is written to.
//!
//! A batch that does not match its checksum, or whose offsets do not follow, ends the pass: damage is never copied. Memory is two buffers for reading and two for writing, one of
//! each under way while the other is worked on, and the one batch at hand when that is larger.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, MaybeDone, maybe_done};

use super::Log;
use super::clean::{CleanFailure, uncleanable};
use super::swap::cleaned_path;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::environment::Environment;
use crate::index::{AbortedTransaction, SegmentIndexes};
use crate::memory::{AlignedBuffer, BLOCK_BYTES, MemoryPool, round_up};
use crate::segment::{SEGMENT_BYTES_LIMIT, index_settings};
use crate::wait::yield_now;

/// Buffers are at least so large, whatever is configured.
const BUFFER_BYTES_MIN: usize = 8 * BLOCK_BYTES;
/// Space is reserved in ever larger steps, of at most so many bytes.
const RESERVE_BYTES: u64 = 8 << 20;

type Read = Pin<Box<MaybeDone<LocalBoxFuture<'static, io::Result<(AlignedBuffer, usize)>>>>>;
type Write = Pin<Box<MaybeDone<LocalBoxFuture<'static, io::Result<()>>>>>;

/// Starts an operation, which goes on while nobody waits for it.
async fn begin<T: 'static>(
    operation: LocalBoxFuture<'static, T>,
) -> Pin<Box<MaybeDone<LocalBoxFuture<'static, T>>>> {
    let mut begun = Box::pin(maybe_done(operation));
    poll_fn(|context| {
        let _ = begun.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
    begun
}

/// Reads a segment's batches in order, and ahead while one buffer is worked on.
pub(super) struct SegmentReader<E: Environment> {
    file: <E::Disk as Disk>::File,
    pool: MemoryPool,
    step: usize,
    /// The offsets that its batches may have; begins where the next one may.
    offsets: Range<i64>,
    size: u64,
    position: u64,
    /// What has been read from the position on.
    bytes: Bytes,
    /// And what comes after that.
    later: Bytes,
    /// Where the next read begins.
    next_read: u64,
    ahead: Option<Read>,
}

impl<E: Environment> SegmentReader<E> {
    /// Over `size` bytes of a segment's file, from the batch at `position` on, in two buffers of `step` bytes.
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
            later: Bytes::new(),
            next_read: position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64,
            ahead: None,
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
        let header = BatchHeader::parse(&self.bytes).map_err(|error| self.damaged(error))?;
        self.fill(header.size()).await?;
        let batch = self.bytes.slice(..header.size());
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
        self.bytes.advance(header.size());
        Ok(Some((header, batch)))
    }

    /// Makes sure that at least `count` bytes from the position on are in one piece. What lies in two buffers is copied.
    async fn fill(&mut self, count: usize) -> Result<(), CleanFailure> {
        if self.bytes.len() >= count {
            return Ok(());
        }
        if self.position + count as u64 > self.size {
            return Err(self.damaged("the segment ends within a batch"));
        }
        if self.bytes.is_empty() {
            self.bytes = self.next_piece().await?;
            if self.bytes.len() >= count {
                return Ok(());
            }
        }
        let mut joined = BytesMut::with_capacity(count);
        joined.extend_from_slice(&std::mem::take(&mut self.bytes));
        while joined.len() < count {
            let mut piece = self.next_piece().await?;
            joined.extend_from_slice(&piece.split_to(piece.len().min(count - joined.len())));
            self.later = piece;
        }
        self.bytes = joined.freeze();
        Ok(())
    }

    /// What comes next, in memory or from the file; at least one byte.
    async fn next_piece(&mut self) -> Result<Bytes, CleanFailure> {
        if !self.later.is_empty() {
            return Ok(std::mem::take(&mut self.later));
        }
        let from = self.next_read;
        if from >= self.size {
            return Err(self.damaged("the segment ends within a batch"));
        }
        let mut reading = match self.ahead.take() {
            Some(reading) => reading,
            None => begin(self.read()).await,
        };
        reading.as_mut().await;
        let Some(read) = reading.as_mut().take_output() else {
            return Err(self.damaged("a read has no result"));
        };
        let (mut buffer, read) = read?;
        let wanted = (self.size - from).min(self.step as u64) as usize;
        if read < wanted {
            return Err(self.damaged("the file is shorter than the segment"));
        }
        buffer.truncate(wanted);
        self.next_read += wanted as u64;
        if self.next_read < self.size {
            self.ahead = Some(begin(self.read()).await);
            // So that it is under way while this one is worked on.
            yield_now().await;
        }
        let mut bytes = buffer.into_bytes();
        // The first one may begin before the position.
        bytes.advance(self.position.saturating_sub(from).min(wanted as u64) as usize);
        Ok(bytes)
    }

    fn read(&self) -> LocalBoxFuture<'static, io::Result<(AlignedBuffer, usize)>> {
        let left = (self.size - self.next_read).min(self.step as u64) as usize;
        let len = round_up(left);
        let (file, buffer, from) = (self.file.clone(), self.pool.buffer(len), self.next_read);
        async move { file.read_at(from, buffer, len).await }.boxed_local()
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
    /// The write that is under way, of the buffer before.
    writing: Option<Write>,
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
        let bytes = self.shard.config.cleaner_io_buffer_bytes / 4;
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
            writing: None,
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

    /// Waits for the write before, and begins that of the buffer.
    async fn flush(&mut self, log: &Log<E>) -> Result<(), CleanFailure> {
        self.written().await?;
        let capacity = self.buffer.capacity();
        let full = std::mem::replace(&mut self.buffer, log.shard.pool.buffer(capacity));
        let bytes = full.into_aligned_slice();
        let end = self.buffer_at + bytes.len() as u64;
        if end > self.reserved {
            // Space for what will be smaller is taken like space for new records: not from what is kept back.
            if !log.shard.restore_ballast(log.directory).await {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
            let step = (end - self.reserved).max(self.reserved.min(RESERVE_BYTES));
            self.file.allocate(self.reserved, step, true).await?;
            self.reserved += step;
        }
        let (file, from) = (self.file.clone(), self.buffer_at);
        let write = async move { file.write_at(from, vec![bytes]).await };
        self.writing = Some(begin(write.boxed_local()).await);
        self.buffer_at = end;
        Ok(())
    }

    /// Nothing is written to the file any more once this returns: its name may soon be another's.
    pub async fn give_up(mut self) {
        if let Err(error) = self.written().await {
            tracing::debug!("the last write of an unfinished cleaning failed: {error}");
        }
    }

    /// Waits for what is being written.
    async fn written(&mut self) -> io::Result<()> {
        let Some(mut writing) = self.writing.take() else {
            return Ok(());
        };
        writing.as_mut().await;
        writing.as_mut().take_output().unwrap_or(Ok(()))
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
        self.written().await?;
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
