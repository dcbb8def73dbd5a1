//! The journal's writer: one task that keeps a few entries in flight and advances the unbroken run of completed ones.
//!
//! It sleeps on a local signal, takes no timer, and never writes an entry twice. A failed write ends the journal.

use std::io;
use std::rc::Rc;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::entry::EntryHeader;
use super::supervised::Supervised;
use super::{Gathering, InFlight, Journal};
use crate::disk::{Disk, DiskFile};
use crate::environment::Environment;
use crate::memory::AlignedSlice;

/// An entry on its way to the disk.
struct Write<F> {
    sequence: u64,
    file: F,
    position: u64,
    pieces: Vec<AlignedSlice>,
}

impl<E: Environment> Journal<E> {
    /// The writer task; ends after [`Journal::stop`], once everything gathered is written, or when the journal has failed.
    pub(super) async fn run_writer(self: Rc<Self>) {
        let _supervised = Supervised(self.clone());
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < self.depth
                && let Some(write) = self.next_write()
            {
                writes.push(async move {
                    (
                        write.sequence,
                        write.file.write_at(write.position, write.pieces).await,
                    )
                });
            }
            if writes.is_empty() {
                if self.stopping.get() || self.failure().is_some() {
                    break;
                }
                self.work.wait().await;
                continue;
            }
            let work = std::pin::pin!(self.work.wait());
            if let Either::Right((Some((sequence, result)), _)) = select(work, writes.next()).await
            {
                self.written(sequence, result);
            }
        }
        self.stopping.set(true);
        self.stopped.happen();
    }

    /// Writes what is gathered and ends the writer and the keeper.
    pub async fn stop(&self) {
        let stopped = self.stopped.next();
        if self.stopping.replace(true) {
            return;
        }
        self.work.raise();
        self.keeper.raise();
        stopped.await;
    }

    fn next_write(&self) -> Option<Write<<E::Disk as Disk>::File>> {
        if self.failure().is_some() {
            return None;
        }
        let mut state = self.state.borrow_mut();
        if state.closed.is_empty() {
            state.close_gathering();
        }
        let Gathering {
            builder,
            sequence,
            file: mark,
            position,
            points,
        } = state.closed.pop_front()?;
        state.closed_bytes -= builder.size();
        let file = state
            .files
            .iter()
            .rev()
            .find(|file| Rc::ptr_eq(&file.mark, &mark))?
            .file
            .clone();
        let header = EntryHeader {
            identity: self.identity,
            life: self.life,
            sequence,
            oldest_live: state.oldest_live(),
            completed: state.completed,
            length: 0,
            staged: 0,
            items: 0,
            previous: state.previous_checksum,
            checksum: 0,
        };
        let (pieces, header) = builder.seal(header);
        state.previous_checksum = header.checksum;
        state.in_flight.push_back(InFlight {
            sequence,
            oldest_live: header.oldest_live,
            done: false,
            points,
        });
        let mut counters = self.counters.get();
        counters.entries += 1;
        counters.bytes += u64::from(header.length);
        counters.items += u64::from(header.items);
        self.counters.set(counters);
        Some(Write {
            sequence,
            file,
            position,
            pieces,
        })
    }

    fn written(&self, sequence: u64, result: io::Result<()>) {
        if let Err(error) = result {
            self.fail(
                format!(
                    "writing the journal failed ({error}); the partitions of this shard are offline until the disk is repaired and the broker is restarted"
                )
                .into(),
            );
            return;
        }
        if self.failure().is_some() {
            return;
        }
        let mut state = self.state.borrow_mut();
        if let Some(entry) = state
            .in_flight
            .iter_mut()
            .find(|entry| entry.sequence == sequence)
        {
            entry.done = true;
        }
        let mut reached = Vec::new();
        while state.in_flight.front().is_some_and(|entry| entry.done) {
            if let Some(entry) = state.in_flight.pop_front() {
                state.completed = entry.sequence;
                state.durable_oldest_live = entry.oldest_live;
                reached.push(entry.points);
            }
        }
        let completed = state.completed;
        let keep = !state.cooling.is_empty() || state.files.len() > 1;
        drop(state);
        for point in reached.into_iter().flatten() {
            point.flush.advance(point.next_offset, point.end);
        }
        self.completions.reached(completed as i64);
        self.room.happen();
        if keep {
            self.keeper.raise();
        }
    }
}
