//! Reading a journal file from its start to its end: what was last read of it, and what is being read ahead.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::future::{MaybeDone, maybe_done};
use futures_util::poll;

use super::JournalFile;
use super::entry::{EntryHeader, Identity, ReadItem, parse, parse_header};
use super::found::FoundItem;
use crate::disk::DiskFile;
use crate::environment::Environment;
use crate::memory::{AlignedBuffer, BLOCK_BYTES, MemoryPool, round_up};

/// Bytes read in one step.
const STEP_BYTES: usize = 1 << 20;
/// Steps that are read ahead.
const AHEAD: usize = 3;

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>>>>;

/// What was last read of a file, so that small entries are not read one by one.
#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Bytes,
    /// Memory for steps that are read ahead; without it nothing is.
    pool: Option<MemoryPool>,
    /// Steps that follow the window without a gap, on their way.
    ahead: VecDeque<Pin<Box<MaybeDone<Reading>>>>,
    /// Where the next one begins.
    next: u64,
}

impl Window {
    /// One for reading files from end to end: the disk reads on while what it gave is looked at.
    pub fn reading_ahead(pool: &MemoryPool) -> Self {
        Self {
            pool: Some(pool.clone()),
            ..Self::default()
        }
    }

    /// Forgets what it holds: it goes on in another file.
    pub fn leave(&mut self) {
        self.bytes = Bytes::new();
        self.ahead.clear();
    }

    /// What it holds of the file: entries given out are slices of it.
    pub fn held(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes of the file from `position` on, at least `len` of them where the file has so many.
    pub async fn at<E: Environment>(
        &mut self,
        file: &JournalFile<E>,
        position: u64,
        len: usize,
    ) -> io::Result<Bytes> {
        loop {
            let skip = position
                .checked_sub(self.start)
                .map(|skip| skip as usize)
                .filter(|skip| *skip <= self.bytes.len() && !self.bytes.is_empty());
            let Some(skip) = skip else {
                self.ahead.clear();
                let step = round_up(len).max(STEP_BYTES);
                self.bytes = read(file, position, step, self.pool.as_ref()).await?;
                self.start = position;
                self.next = position + self.bytes.len() as u64;
                self.read_ahead(file).await;
                return Ok(self.bytes.clone());
            };
            let rest = self.bytes.slice(skip..);
            if rest.len() >= len {
                return Ok(rest);
            }
            let Some(mut step) = self.ahead.pop_front() else {
                self.bytes = Bytes::new();
                continue;
            };
            (&mut step).await;
            let step = step
                .as_mut()
                .take_output()
                .unwrap_or_else(|| Ok(Bytes::new()))?;
            let start = self.start + self.bytes.len() as u64;
            if step.len() < STEP_BYTES && start + (step.len() as u64) < file.size {
                // The file has become shorter: what was read further on does not follow this.
                self.ahead.clear();
            } else {
                self.read_ahead(file).await;
            }
            let wanting = len - rest.len();
            if wanting <= step.len() {
                // The window moves on; what lies on its edge is copied.
                self.start = start;
                self.bytes = step;
                if rest.is_empty() {
                    continue;
                }
                return Ok([&rest, &self.bytes[..wanting]].concat().into());
            }
            self.start = position;
            self.bytes = [&rest[..], &step[..]].concat().into();
            if step.is_empty() {
                return Ok(self.bytes.clone());
            }
        }
    }

    /// Has the disk read on.
    async fn read_ahead<E: Environment>(&mut self, file: &JournalFile<E>) {
        let Some(pool) = &self.pool else { return };
        while self.ahead.len() < AHEAD && self.next < file.size {
            let (shared, pool, from) = (file.share(), pool.clone(), self.next);
            let reading: Reading =
                Box::pin(async move { read(&shared, from, STEP_BYTES, Some(&pool)).await });
            let mut reading = Box::pin(maybe_done(reading));
            // Gives it to the disk.
            let _ = poll!(&mut reading);
            self.ahead.push_back(reading);
            self.next = file.size.min(from + STEP_BYTES as u64);
        }
    }

    /// The valid entry at `position`, if there is one.
    pub async fn entry<E: Environment>(
        &mut self,
        file: &JournalFile<E>,
        position: u64,
        identity: Identity,
    ) -> io::Result<Option<(EntryHeader, Vec<ReadItem>, Bytes)>> {
        if position + BLOCK_BYTES as u64 > file.size {
            return Ok(None);
        }
        let bytes = self.at(file, position, BLOCK_BYTES).await?;
        let Ok(header) = parse_header(&bytes, identity) else {
            return Ok(None);
        };
        if position + u64::from(header.length) > file.size {
            return Ok(None);
        }
        let bytes = self.at(file, position, header.length as usize).await?;
        Ok(parse(&bytes, identity)
            .ok()
            .map(|(header, items)| (header, items, bytes.slice(..header.length as usize))))
    }

    /// The bytes of an entry that was found before.
    pub async fn entry_bytes<E: Environment>(
        &mut self,
        file: &JournalFile<E>,
        item: &FoundItem,
    ) -> io::Result<Bytes> {
        let length = item.length as usize;
        let bytes = self.at(file, item.position, length).await?;
        if bytes.len() < length {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a journal file has become shorter",
            ));
        }
        Ok(bytes.slice(..length))
    }
}

/// Reads up to `len` bytes of a journal file.
async fn read<E: Environment>(
    file: &JournalFile<E>,
    position: u64,
    len: usize,
    pool: Option<&MemoryPool>,
) -> io::Result<Bytes> {
    let len = len.min((file.size - position.min(file.size)) as usize);
    let buffer = match pool {
        Some(pool) => pool.buffer(len),
        None => AlignedBuffer::with_capacity(len),
    };
    let (mut buffer, read) = file.file.read_at(position, buffer, len).await?;
    buffer.truncate(read / BLOCK_BYTES * BLOCK_BYTES);
    Ok(buffer.into_bytes())
}
