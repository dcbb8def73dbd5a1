//! Walking the batches of a segment from a position on, wherever they are: in the file, in the tail, or half in each.
//!
//! Offset and length lie outside a batch's checksum, so each header from the file must fit between its neighbours. Who walks does not have the turn on the files: what is written behind
//! and let go meanwhile changes where batches are. A step that finds nothing below what it went by looks again, or has met damage; it never takes that for the end.

use super::flush::Place;
use super::read::Straddling;
use super::{Log, ReadError};
use crate::batch::{BatchHeader, EndTransactionMarker, HEADER_BYTES};
use crate::environment::Environment;
use crate::memory::BLOCK_BYTES;

/// Bytes looked at in one step of a walk.
const STEP_BYTES: usize = 1 << 20;
/// And where the batch looked for lies near.
pub(super) const STEP_BYTES_MIN: usize = 32 << 10;

/// What a step goes by.
#[derive(Clone, Copy)]
struct Ground {
    layout: (u64, u64),
    /// The base offset of the segment after it.
    ceiling: i64,
    size: u64,
    written: u64,
    tail: Option<Place>,
}

impl Ground {
    /// Whether batches may be elsewhere by now.
    fn has_shifted(&self, now: &Self) -> bool {
        (self.layout, self.written, self.tail) != (now.layout, now.written, now.tail)
    }
}

/// How far a step came.
enum Walked {
    /// To this position: the segment's end if it is where the step began.
    To(u64),
    /// Nowhere, because what it went by has changed.
    Nowhere,
}

impl<E: Environment> Log<E> {
    /// Looks at the headers of the whole batches found in one step from `position` on; returns the position after them.
    pub(crate) async fn walk(
        &self,
        base: i64,
        position: u64,
        visit: impl FnMut(&BatchHeader, u64) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        self.walk_in_steps(base, position, STEP_BYTES, visit).await
    }

    /// The same in steps of `step_bytes`, or of as much as a header takes.
    pub(super) async fn walk_in_steps(
        &self,
        base: i64,
        position: u64,
        step_bytes: usize,
        mut visit: impl FnMut(&BatchHeader, u64) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        self.walk_batches(base, position, step_bytes, false, |header, at, _| {
            visit(header, at)
        })
        .await
    }

    /// The same, and hands out what follows the header of each batch that may be a transaction's marker.
    pub(super) async fn walk_markers(
        &self,
        base: i64,
        position: u64,
        mut visit: impl FnMut(&BatchHeader, &[u8]) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        self.walk_batches(base, position, STEP_BYTES, true, |header, _, records| {
            visit(header, records)
        })
        .await
    }

    async fn walk_batches(
        &self,
        base: i64,
        position: u64,
        step_bytes: usize,
        with_markers: bool,
        mut visit: impl FnMut(&BatchHeader, u64, &[u8]) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        self.settle().await?;
        loop {
            let Some(ground) = self.ground(base) else {
                return Ok(position);
            };
            let in_tail = ground.tail.is_some_and(|start| {
                start
                    <= Place {
                        segment: base,
                        position,
                    }
            });
            if in_tail {
                return self.walk_tail(base, position, ground.size, with_markers, visit);
            }
            if position >= ground.written {
                if position < ground.size {
                    // A log that answers no more has let its tail go.
                    self.check_online()?;
                }
                return Ok(position);
            }
            let step = (position, step_bytes);
            match self
                .walk_file(base, step, ground, with_markers, &mut visit)
                .await?
            {
                Walked::To(at) => return Ok(at),
                Walked::Nowhere => {}
            }
        }
    }

    /// What a step in this segment would go by now; `None` when the segment is not there.
    fn ground(&self, base: i64) -> Option<Ground> {
        let state = self.state.borrow();
        let segment = state.segments.get(&base)?;
        let next = state.segments.range(base + 1..).next();
        Some(Ground {
            layout: self.layout(),
            ceiling: next.map_or(i64::MAX, |(next, _)| *next),
            size: segment.size,
            written: segment.written,
            tail: state.tail.start(),
        })
    }

    /// A step in the tail, which is all there: nothing is waited for.
    fn walk_tail(
        &self,
        base: i64,
        position: u64,
        size: u64,
        with_markers: bool,
        mut visit: impl FnMut(&BatchHeader, u64, &[u8]) -> Result<(), String>,
    ) -> Result<u64, ReadError> {
        let mut at = position;
        let mut raw = [0; HEADER_BYTES];
        while at < size && self.state.borrow().tail.copy(base, at, &mut raw) {
            let header =
                BatchHeader::parse(&raw).map_err(|error| self.corrupt(base, error.to_string()))?;
            let mut marker = Vec::new();
            if with_markers && EndTransactionMarker::is_possible(&header) {
                marker.resize(header.size(), 0);
                if !self.state.borrow().tail.copy(base, at, &mut marker) {
                    break;
                }
            }
            let records = marker.get(HEADER_BYTES..).unwrap_or_default();
            visit(&header, at, records)
                .map_err(|reason| self.corrupt(header.base_offset, reason))?;
            at += header.size() as u64;
        }
        Ok(at)
    }

    /// A step of (position, bytes) that begins in the file.
    async fn walk_file(
        &self,
        base: i64,
        (position, step_bytes): (u64, usize),
        ground: Ground,
        with_markers: bool,
        visit: &mut impl FnMut(&BatchHeader, u64, &[u8]) -> Result<(), String>,
    ) -> Result<Walked, ReadError> {
        let written = ground.written;
        let mut at = position;
        let aligned = at / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let bytes = self.read_file(base, aligned, step_bytes, written).await?;
        let mut floor = base;
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
                    Straddling::Batch(header, _) => header,
                    Straddling::Gone => break,
                    Straddling::Damaged(reason) => return Err(self.corrupt(base, reason)),
                }
            };
            if at + header.size() as u64 > ground.size
                || header.base_offset < floor
                || header.next_offset() > ground.ceiling
            {
                return Err(self.corrupt(
                    base,
                    format!(
                        "a batch of {} bytes at offset {} does not fit at position {at}",
                        header.size(),
                        header.base_offset
                    ),
                ));
            }
            let joined;
            let records = if !with_markers || !EndTransactionMarker::is_possible(&header) {
                &[]
            } else if let Some(batch) = rest.get(..header.size()) {
                &batch[HEADER_BYTES..]
            } else if let Some(batch) = self.join_with_tail(base, at, &header, rest) {
                joined = batch;
                &joined[HEADER_BYTES..]
            } else {
                // All of it is in the tail, or more of the file has to be read.
                break;
            };
            floor = header.next_offset();
            visit(&header, at, records)
                .map_err(|reason| self.corrupt(header.base_offset, reason))?;
            at += header.size() as u64;
        }
        if at > position {
            return Ok(Walked::To(at));
        }
        // Closed meanwhile, it may have lost its tail.
        self.check_online()?;
        if self.ground(base).is_none_or(|now| ground.has_shifted(&now)) {
            return Ok(Walked::Nowhere);
        }
        let reason = format!("the batch at position {at} cannot be read whole");
        Err(self.corrupt(base, reason))
    }

    /// The batch at `position`, which begins with `head` in the file and ends in the tail.
    fn join_with_tail(
        &self,
        base: i64,
        position: u64,
        header: &BatchHeader,
        head: &[u8],
    ) -> Option<Vec<u8>> {
        let head_len = self.bytes_before_tail(base, position)?;
        let mut batch = head.get(..head_len)?.to_vec();
        batch.resize(header.size().max(head_len), 0);
        let state = self.state.borrow();
        let whole = state
            .tail
            .copy(base, position + head_len as u64, &mut batch[head_len..]);
        (whole && batch.len() == header.size()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    //! A walk that begins in the file meets a marker which is whole in the tail, but of which only the beginning is written behind.
    use std::path::PathBuf;
    use std::time::Duration;

    use bytes::Bytes;

    use crate::batch::{BatchBuilder, EndTransactionMarker, ProduceRules};
    use crate::config::{EngineConfig, LogConfig};
    use crate::engine::{Engine, prepare_directories};
    use crate::log::tail::LetGo;
    use crate::log::{Log, TopicId, TopicPartition, WriteBehind, WroteBehind};
    use crate::memory::BLOCK_BYTES;
    use crate::sim::{Executor, SimEnvironment};

    async fn append(log: &Log<SimEnvironment>, bytes: usize) {
        let record = BatchBuilder::new().record(0, None, Some(&vec![0; bytes]));
        let batch = Bytes::from(record.build().expect("a batch"));
        let appended = log.append(batch, &ProduceRules::default(), 1).await;
        let end = appended.expect("appended").last_offset + 1;
        log.flushed(end).await.expect("flushed");
    }

    async fn walked_over_a_marker(env: SimEnvironment) {
        let config = EngineConfig {
            write_behind_bytes: u64::MAX,
            write_behind_age: Duration::from_secs(3600),
            ..EngineConfig::new(vec![PathBuf::from("/data")])
        };
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env, config).await.expect("opened");
        let name = TopicPartition::new("t", 0);
        let made = engine.create_log(name, TopicId([1; 16]), LogConfig::default(), None);
        let log = made.await.expect("made");
        let block = BLOCK_BYTES as u64;
        append(&log, 100).await;
        // More than one chunk, and the last of them goes on before and after the block in which the marker begins.
        while log.state.borrow().end().position < 20 * block {
            append(&log, 700).await;
        }
        let room = block - log.state.borrow().end().position % block;
        append(&log, (2 * block + room) as usize - 140).await;
        let begins = log.state.borrow().end().position;
        let marker = EndTransactionMarker {
            producer_id: 1,
            producer_epoch: 0,
            coordinator_epoch: 1,
            committed: true,
            timestamp: 0,
        };
        let marked = log.append_marker(&marker, 1, 1).await.expect("appended");
        let end = marked.last_offset + 1;
        log.flushed(end).await.expect("flushed");
        assert_eq!(
            log.write_behind(WriteBehind::Blocks).await,
            WroteBehind::All
        );
        log.release_memory(LetGo::Chunks, || false);
        {
            let state = log.state.borrow();
            let (start, written) = (state.tail.start().expect("a tail"), state.written());
            assert!(0 < start.position && start.position <= begins);
            assert!(begins < written.position && written.position < state.end().position);
        }
        append(&log, 100).await;
        assert_eq!(log.truncate_to(end).await.expect("truncated"), end);
        let mut headers = 0;
        let mut position = 0;
        loop {
            let count = |_: &_, _: &[u8]| {
                headers += 1;
                Ok(())
            };
            let next = log.walk_markers(0, position, count).await.expect("whole");
            if next == position {
                break;
            }
            position = next;
        }
        assert_eq!(
            (headers, position),
            (end, log.state.borrow().end().position)
        );
    }

    #[test]
    fn a_marker_that_is_half_written_behind_is_read_from_the_tail() {
        Executor::new(7)
            .run_until(Default::default(), walked_over_a_marker)
            .finished();
    }
}
