//! What a log's batches say of its producers, read back: a snapshot, and the batches after it.
//!
//! Needed when a log is opened, when it is truncated, and when a segment's transaction index is lost: which transactions its markers ended only earlier batches can tell.

use std::cell::RefCell;

use super::stable::{UnstableOffsets, note_event};
use super::{Log, ReadError};
use crate::disk::Disk;
use crate::environment::Environment;
use crate::index::{AbortedTransaction, TransactionIndex};
use crate::producer_state::{ProducerEvent, ProducerStates};
use crate::segment::file_name;

/// The batches to be read: those of these offsets, in segments up to this one, from a position in the first that is at or before them.
struct Stretch {
    from: i64,
    to: i64,
    last_segment: i64,
    position: u64,
}

impl<E: Environment> Log<E> {
    /// Producers and open transactions as of `end`. With `exact` the log was checkpointed there: without a snapshot there were no producers.
    pub(super) async fn restore_producers(&self, end: i64, exact: bool) -> Result<(), ReadError> {
        let newest = {
            let mut state = self.state.borrow_mut();
            state.snapshots.retain(|offset| *offset <= end);
            state.producers.clear();
            state.snapshots.last().copied()
        };
        let (producers, from) = if exact && newest != Some(end) {
            (ProducerStates::new(self.producer_limits()), end)
        } else {
            self.newest_snapshot(end).await
        };
        let producers = if from < end {
            self.read_to(producers, from, end).await?
        } else {
            producers
        };
        self.flush
            .reset_unstable(producers.open_transactions(), self.now_ms());
        self.state.borrow_mut().producers = producers;
        Ok(())
    }

    /// What became of `producers` from `from` to `end`.
    async fn read_to(
        &self,
        producers: ProducerStates,
        from: i64,
        end: i64,
    ) -> Result<ProducerStates, ReadError> {
        let first = self
            .state
            .borrow()
            .segment_of(from)
            .map(|segment| segment.base_offset);
        let position = match first {
            Some(base) if base <= from => self.position_hint(base, from).await?,
            _ => 0,
        };
        let stretch = Stretch {
            from,
            to: end,
            last_segment: i64::MAX,
            position,
        };
        self.read_events(producers, stretch, |_| Ok(())).await
    }

    /// A segment's transaction index, made anew.
    pub(super) async fn rebuild_transactions(
        &self,
        base: i64,
    ) -> Result<TransactionIndex, ReadError> {
        let (producers, from) = self.newest_snapshot(base).await;
        let mut index = TransactionIndex::new();
        let stretch = Stretch {
            from,
            to: i64::MAX,
            last_segment: base,
            position: 0,
        };
        self.read_events(producers, stretch, |aborted| {
            if aborted.last_offset < base {
                return Ok(());
            }
            index.append(aborted).map_err(|error| error.to_string())
        })
        .await?;
        Ok(index)
    }

    /// The producers of the newest snapshot at or before `limit` that can be used, and its offset; none at the log's start where there is no such snapshot.
    async fn newest_snapshot(&self, limit: i64) -> (ProducerStates, i64) {
        let candidates: Vec<i64> = {
            let state = self.state.borrow();
            // From a snapshot before the first segment there is no way to here: what the producers did in between is gone, and not to know
            // a producer is better than to know it wrongly.
            let first = state
                .segments
                .first_key_value()
                .map_or(limit, |(base, _)| *base);
            let usable = |offset: &i64| *offset <= limit && (*offset >= first || *offset == limit);
            let newest_first = state.snapshots.iter().rev().copied();
            newest_first.filter(usable).collect()
        };
        let limits = self.producer_limits();
        for offset in candidates {
            let path = self.path().join(file_name(offset, "snapshot"));
            let Ok(bytes) = self.shard.env.disk().read_small(&path).await else {
                continue;
            };
            match ProducerStates::decode_snapshot(&bytes, limits, self.now_ms()) {
                Ok(producers) => return (producers, offset),
                Err(error) => {
                    tracing::warn!(log = %self.topic_partition, offset, "a producer snapshot cannot be used: {error}");
                }
            }
        }
        (ProducerStates::new(limits), self.log_start_offset())
    }

    /// Lets producers know of the batches of a stretch; `aborted` is told of the transactions that were aborted in it.
    async fn read_events(
        &self,
        mut producers: ProducerStates,
        stretch: Stretch,
        mut aborted: impl FnMut(AbortedTransaction) -> Result<(), String>,
    ) -> Result<ProducerStates, ReadError> {
        let now_ms = self.now_ms();
        let mut unstable = UnstableOffsets::default();
        unstable.reset(producers.open_transactions(), self.now_ms());
        let unstable = RefCell::new(unstable);
        let Stretch { from, to, .. } = stretch;
        let bases: Vec<i64> = {
            let state = self.state.borrow();
            let first = state
                .segment_of(from)
                .map_or(0, |segment| segment.base_offset);
            let bases = state.segments.range(first..).map(|(base, _)| *base);
            bases
                .take_while(|base| *base <= stretch.last_segment && *base < to)
                .collect()
        };
        let mut position = stretch.position;
        for base in bases {
            loop {
                let next = self
                    .walk_markers(base, position, |header, records| {
                        // The log may start within a batch, which counts all the same.
                        if header.last_offset() < from || header.next_offset() > to {
                            return Ok(());
                        }
                        let event = ProducerEvent::of(header, records);
                        let Some(event) = event.map_err(|error| error.to_string())? else {
                            return Ok(());
                        };
                        match note_event(&mut producers, &unstable, &event, header, now_ms) {
                            Some(entry) => aborted(entry),
                            None => Ok(()),
                        }
                    })
                    .await?;
                if next == position {
                    break;
                }
                position = next;
            }
            position = 0;
        }
        Ok(producers)
    }
}
