//! Writing behind: flushed bytes go from the tail's chunks to the segment files, aligned, direct and unsynced.
//!
//! Only what is flushed is written, so a segment never holds what the journal does not. A partial last block is written padded and written again
//! later. An error takes this log offline, and only this log; but where space or descriptors are wanting, it is tried again as it ages. Opening and reading the files is here too.

use std::io;

use bytes::Bytes;

use super::flush::Place;
use super::tail::LetGo;
use super::{Log, ReadError};
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::engine::ballast::may_pass;
use crate::environment::Environment;
use crate::memory::{BLOCK_BYTES, round_up};
use crate::segment::open_log_file;

/// Bytes written to a segment in one go: small enough not to hold up the journal,
const STEP_BYTES: u64 = 1 << 20;
/// and more when a log has so much to write that one such write at a time would not keep up.
const STEP_BYTES_MAX: u64 = 4 << 20;

/// How much to write behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBehind {
    /// Whole blocks only.
    Blocks,
    /// Everything flushed, the last block padded.
    Everything,
    /// What is flushed before this place and no more, however busy the log is; the last block padded.
    Before(Place),
}

/// What came of writing behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WroteBehind {
    /// Everything that was asked for is in the files.
    All,
    /// The disk has no space for it now, or the process no descriptor: the rest is in memory and in the journal, and to be tried again.
    Later,
    /// The log is offline.
    Offline,
}

impl<E: Environment> Log<E> {
    /// Writes flushed bytes to the segment files. Who else works on the files gets the turn between two steps: a log that is appended to as fast as it is written
    /// behind would otherwise keep it, and its own reservations and checkpoints out, until appends have to wait for them.
    pub(crate) async fn write_behind(&self, how: WriteBehind) -> WroteBehind {
        loop {
            let _io = self.io.enter().await;
            if let Some(ended) = self.write_next_step(how).await {
                return ended;
            }
        }
    }

    /// The same for a caller who has the turn on the files, and keeps it.
    pub(super) async fn write_behind_in_turn(&self, how: WriteBehind) -> WroteBehind {
        loop {
            if let Some(ended) = self.write_next_step(how).await {
                return ended;
            }
        }
    }

    /// Writes one step; what came of it all when it was the last. The caller has the turn.
    async fn write_next_step(&self, how: WriteBehind) -> Option<WroteBehind> {
        if self.flush.closed().is_some() {
            return Some(WroteBehind::Offline);
        }
        let Some((base, from, to, end)) = self.next_step(how) else {
            return Some(WroteBehind::All);
        };
        if let Err(error) = self.write_step(base, from, to).await {
            if may_pass(&error) {
                self.shard.note_shortage(&error);
                return Some(WroteBehind::Later);
            }
            self.take_offline(&format!(
                "writing segment {base} failed ({error}); everything acknowledged is safe in the journal: repair the disk and restart the broker"
            ));
            return Some(WroteBehind::Offline);
        }
        let mut state = self.state.borrow_mut();
        if let Some(segment) = state.segments.get_mut(&base) {
            segment.written = end;
        }
        if state.written() >= state.end() {
            state.dirty_since = None;
        } else {
            state.dirty_since = Some(self.shard.env.now());
        }
        drop(state);
        self.shard.wrote_behind(to - from);
        self.release_memory(LetGo::Chunks, || !self.shard.over_budget());
        None
    }

    /// The next bytes to write: segment, block range, and up to where the segment is written afterwards.
    fn next_step(&self, how: WriteBehind) -> Option<(i64, u64, u64, u64)> {
        let state = self.state.borrow();
        let flushed = match how {
            WriteBehind::Before(place) => self.flush.place().min(place),
            WriteBehind::Blocks | WriteBehind::Everything => self.flush.place(),
        };
        // What is parked is not in the tail yet.
        let flushed = state
            .parked_from()
            .map_or(flushed, |parked| flushed.min(parked));
        let block = BLOCK_BYTES as u64;
        for (&base, segment) in &state.segments {
            if segment.written >= segment.size {
                continue;
            }
            let limit = match base.cmp(&flushed.segment) {
                std::cmp::Ordering::Less => segment.size,
                std::cmp::Ordering::Equal => flushed.position.min(segment.size),
                std::cmp::Ordering::Greater => return None,
            };
            let rolled = state
                .segments
                .last_key_value()
                .is_some_and(|(last, _)| *last != base);
            let end = if how == WriteBehind::Blocks && !(rolled && limit == segment.size) {
                limit / block * block
            } else {
                limit
            };
            if end <= segment.written {
                return None;
            }
            let from = segment.written / block * block;
            let behind = state.dirty_bytes();
            let step = if behind > 4 * STEP_BYTES_MAX {
                STEP_BYTES_MAX
            } else {
                STEP_BYTES
            };
            let end = end.min(from + step);
            return Some((base, from, end.next_multiple_of(block), end));
        }
        None
    }

    async fn write_step(&self, base: i64, from: u64, to: u64) -> io::Result<()> {
        let file = self.open_segment(base).await?;
        if let Some(reason) = self.flush.closed() {
            // Its tail may be gone.
            return Err(io::Error::other(reason.to_string()));
        }
        let pieces = {
            let state = self.state.borrow();
            let size = state.segments.get(&base).map_or(0, |segment| segment.size);
            // Bytes beyond the step's end may be published already: they belong to the same block and are flushed or not, but
            // what has not been acknowledged does no harm in a file whose truth is the journal.
            state.tail.padded_blocks(base, from..to.min(size))
        };
        debug_assert_eq!(
            pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(),
            to - from
        );
        file.write_at(from, pieces).await
    }

    /// The open file of the active segment.
    pub(super) async fn open_active(&self) -> io::Result<<E::Disk as Disk>::File> {
        let base = self
            .state
            .borrow()
            .segments
            .last_key_value()
            .map(|(base, _)| *base);
        match base {
            Some(base) => self.open_segment(base).await,
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the log has no segment",
            )),
        }
    }

    /// The open file of a segment; opened, and another one closed, when there are too many.
    pub(crate) async fn open_segment(&self, base: i64) -> io::Result<<E::Disk as Disk>::File> {
        let used = self.shard.tick();
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.used = used;
            if let Some(file) = &segment.file {
                return Ok(file.clone());
            }
        }
        let options = OpenOptions {
            create: false,
            ..OpenOptions::SEGMENT
        };
        let replacements = self.replacements.get();
        let file = open_log_file(&self.shard.env, &self.path(), base, options).await?;
        if self.replacements.get() == replacements
            && let Some(segment) = self.state.borrow_mut().segments.get_mut(&base)
            && segment.file.is_none()
        {
            segment.file = Some(file.clone());
            self.shard.file_opened();
        }
        Ok(file)
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

    /// Gives back all memory when the log answers no more.
    pub(crate) fn release_if_closed(&self) {
        let mut state = self.state.borrow_mut();
        let freed = state.tail.capacity();
        if freed > 0 && self.flush.closed().is_some() {
            state.tail.clear();
            self.shard.memory_freed(freed);
        }
    }

    /// Gives back what is written behind, as far as `what` allows, until it is `enough`.
    pub(crate) fn release_memory(&self, what: LetGo, enough: impl Fn() -> bool) {
        let mut state = self.state.borrow_mut();
        let written = state.written();
        while !enough() {
            let freed = state.tail.evict(&self.shard.pool, written, what);
            if freed == 0 {
                break;
            }
            self.shard.memory_freed(freed);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Writing behind leaves the turn to others between two steps.
    use std::path::PathBuf;
    use std::time::Duration;

    use futures_util::future::join;

    use super::WriteBehind;
    use crate::config::{EngineConfig, LogConfig};
    use crate::log::testing::{append, with_log};

    #[test]
    fn others_get_the_turn_between_two_steps() {
        let config = EngineConfig {
            write_behind_bytes: u64::MAX,
            write_behind_age: Duration::from_secs(3600),
            ..EngineConfig::new(vec![PathBuf::from("/data")])
        };
        with_log(7, config, LogConfig::default(), |_, log| async move {
            let mut end = 0;
            for _ in 0..8 {
                end = append(&log, None, 600_000).await;
            }
            log.flushed(end).await.expect("flushed");
            let writing = log.write_behind(WriteBehind::Everything);
            let other = async {
                let _turn = log.io.enter().await;
                log.state.borrow().dirty_bytes()
            };
            let (_, left) = join(writing, other).await;
            assert!(left > 0, "the turn came only after everything was written");
            assert_eq!(log.state.borrow().dirty_bytes(), 0);
        });
    }
}
