//! The connections of a shard: who is there, who has been idle for too long, and how all of them end when the broker stops.
//!
//! One sweep per shard looks at them every few seconds, so that a connection itself needs no timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::Shutdown;
use slab::Slab;

use super::budget::Account;
use super::reader::UNASKED_BYTES;
use super::signal::Changed;
use super::{Partial, Pipe, Seen};
use crate::shard::Shard;

/// A frame that holds memory must come on within this part of `connections.max.idle.ms`, and one that holds what others wait for be complete;
/// bounds of that time follow.
const STALLED_PART: u32 = 20;
const STALLED_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Responses that hold what others wait for must be taken within this part of that time: a consumer that is cut loses nothing.
const UNTAKEN_PART: u32 = 3;
/// Bytes a second that earn a frame more time when nobody waits for its memory.
const FRAME_BYTES_PER_SECOND: usize = 16 << 10;
/// A connection whose socket was cut ends within this time.
const CUT_ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Bounds of the time between sweeps.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Lines about closed connections that a shard may log in a second.
const COMPLAINTS_PER_SECOND: u32 = 10;

/// The connections of one shard.
pub struct Connections {
    open: RefCell<Slab<Rc<Pipe>>>,
    ended: Changed,
    complaints: Cell<(Instant, u32)>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: RefCell::new(Slab::new()),
            ended: Changed::default(),
            complaints: Cell::new((Instant::now(), 0)),
        }
    }
}

/// A connection that is counted for as long as this lives.
pub(super) struct Registered {
    pub(super) pipe: Rc<Pipe>,
    key: usize,
}

impl Registered {
    pub(super) fn new(pipe: Rc<Pipe>) -> Self {
        let shard = &pipe.shard;
        let mut open = shard.connections.open.borrow_mut();
        let key = open.insert(pipe.clone());
        shard.metrics.connections_opened.add(1);
        shard.metrics.connections.set(open.len() as u64);
        drop(open);
        Self { pipe, key }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let shard = &self.pipe.shard;
        self.pipe.context.closed.raise();
        let mut open = shard.connections.open.borrow_mut();
        open.try_remove(self.key);
        shard.metrics.connections.set(open.len() as u64);
        shard.metrics.assigned.subtract_shared(1);
        shard
            .fetch_sessions
            .borrow_mut()
            .close_connection(self.pipe.context.id);
        drop(open);
        shard.connections.ended.notify();
    }
}

impl Connections {
    /// Whether a line may be logged about what a client did; says once in a while how many were not.
    pub(super) fn may_complain(&self) -> bool {
        let (since, count) = self.complaints.get();
        if since.elapsed() >= Duration::from_secs(1) {
            if count > COMPLAINTS_PER_SECOND {
                let left_out = count - COMPLAINTS_PER_SECOND;
                tracing::warn!(
                    left_out,
                    "more connections were closed for what clients sent"
                );
            }
            self.complaints.set((Instant::now(), 1));
            return true;
        }
        self.complaints.set((since, count.saturating_add(1)));
        count < COMPLAINTS_PER_SECOND
    }

    /// Lets every connection answer what it has begun, reading nothing more; those that take longer than `patience` are cut, and get a second to
    /// notice.
    pub async fn stop(&self, patience: Duration) {
        for (how, patience) in [
            (Shutdown::Read, patience),
            (Shutdown::Both, CUT_ENDS_WITHIN),
        ] {
            self.shut_all(how);
            let ended = self
                .ended
                .until(|| self.open.borrow().is_empty().then_some(()));
            if compio::time::timeout(patience, ended).await.is_ok() {
                return;
            }
        }
    }

    fn shut_all(&self, how: Shutdown) {
        for (_, pipe) in self.open.borrow().iter() {
            pipe.context.closed.raise();
            pipe.shut(how);
        }
    }

    fn sweep(&self, idle_limit: Option<Duration>) {
        let patience = idle_limit.map_or(STALLED_AFTER.1, |limit| {
            (limit / STALLED_PART).clamp(STALLED_AFTER.0, STALLED_AFTER.1)
        });
        for (_, pipe) in self.open.borrow().iter() {
            let idle = pipe.last_activity.get().elapsed();
            let busy = pipe.in_work() > 0;
            // A response that nobody takes is no activity for ever: it gets the same time once more.
            let limit = idle_limit.map(|limit| if busy { limit.saturating_mul(2) } else { limit });
            let stalled = frame_stalls(pipe, patience) || hoards(pipe, patience);
            if stalled || limit.is_some_and(|limit| idle >= limit) {
                let peer = pipe.context.peer;
                tracing::debug!(%peer, ?idle, stalled, "closed an idle connection");
                pipe.shut(Shutdown::Both);
            }
        }
    }
}

/// Whether a frame that has begun comes too slowly for the memory it holds, whatever else the connection does.
fn frame_stalls(pipe: &Pipe, patience: Duration) -> bool {
    let Some(Partial { since, arrived }) = pipe.partial.get() else {
        return false;
    };
    let earned = match pipe.requests.budget().is_contended() {
        true => Duration::ZERO,
        false => Duration::from_secs((arrived / FRAME_BYTES_PER_SECOND) as u64),
    };
    since.elapsed() >= patience + earned
}

/// Whether the connection holds what others wait for, and it is for its client that it gives nothing back.
fn hoards(pipe: &Pipe, patience: Duration) -> bool {
    let wanted = |account: &Account, unasked: usize| {
        account.held() > unasked && account.budget().is_contended()
    };
    let (requests, responses) = (&pipe.requests, &pipe.context.responses);
    let untaken = wanted(responses, 0);
    let held_up = pipe.sending.get() || pipe.context.parked.get();
    let progress = requests.progress().wrapping_add(responses.progress());
    let seen = pipe.seen.get();
    if held_up && progress == seen.progress && (untaken || wanted(requests, UNASKED_BYTES)) {
        let part = if untaken { UNTAKEN_PART } else { 1 };
        return seen.since.elapsed() >= patience / part;
    }
    pipe.seen.set(Seen {
        progress,
        since: Instant::now(),
    });
    false
}

/// Closes idle connections until the broker stops.
pub async fn sweep(shard: Rc<Shard>) {
    let limit = shard.config.idle_timeout;
    let every = limit.map_or(SWEEP_EVERY.1, |limit| {
        (limit / STALLED_PART).clamp(SWEEP_EVERY.0, SWEEP_EVERY.1)
    });
    loop {
        compio::time::sleep(every).await;
        shard.connections.sweep(limit);
    }
}
