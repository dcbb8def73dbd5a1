//! How appends share the thread with everything else, and the order in which those from other shards begin.
//!
//! Checking a batch may mean to decompress tens of megabytes, and nothing else runs on the thread meanwhile. So time spent on appends is measured, and
//! once it is a slice's worth, whoever begins the next batch first lets other tasks have their turn ([`Shard::breathe`]). The mailbox
//! cannot wait: an order that has to goes to the lane, a queue, and so does every order after it until the lane is empty, so
//! that they begin as they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use ringlog_engine::environment::Environment as _;

use super::Shard;
use super::append::{AppendOrder, Started, settle_all};
use super::begun::Begun;
use super::exchange::ReplyTo;
use super::message::{Reply, Request};
use super::runtime::{Ending, contained, spawn, spawn_vital};

/// Time that appends may take before other tasks get their turn.
const SLICE_US: u64 = 2_000;

/// The pause: as good as none, but one that leads through the runtime's driver.
const PAUSE: Duration = Duration::from_micros(1);

type Answer = ReplyTo<Request, Reply>;
/// Batches whose turn is fixed, some of which wait for memory or space.
pub(super) type Fixed = Begun<Started>;

/// What of appends is waiting to begin on a shard, and how long they have had the thread.
#[derive(Default)]
pub struct Lane {
    spent_us: Cell<u64>,
    running: Cell<bool>,
    waiting: RefCell<VecDeque<(AppendOrder, Answer)>>,
}

impl Shard {
    /// Lets other tasks run if measured work has had its slice of the thread.
    pub async fn breathe(&self) {
        let lane = &self.lane;
        if lane.spent_us.get() < SLICE_US {
            return;
        }
        // A task that only wakes itself is run many times before the runtime looks at the ring again; a timer makes it look.
        self.environment.sleep(PAUSE).await;
        self.metrics.append_pauses.add(1);
        lane.spent_us.set(0);
    }

    /// Measures the time that `work` has the thread, and lets others have it first if it is their turn.
    pub async fn measured<T>(&self, work: impl Future<Output = T>) -> T {
        self.breathe().await;
        let mut work = pin!(work);
        poll_fn(|context| self.clocked(|| work.as_mut().poll(context))).await
    }

    fn clocked<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = self.environment.now();
        let result = work();
        let spent = self.environment.now().saturating_sub(began);
        self.lane.spent_us.set(self.lane.spent_us.get() + spent);
        result
    }

    /// Begins each batch, with pauses in between; on return the place of each in its log's order is fixed. Those that wait go on meanwhile: they may stand first
    /// in the line for memory.
    pub(super) async fn fix_order(self: &Rc<Self>, order: AppendOrder) -> Fixed {
        let mut fixed = Fixed::with_capacity(order.items.len());
        for item in order.items {
            fixed.meanwhile(self.breathe()).await;
            let shard = self.clone();
            let start = async move { shard.start_one(item, order.allowed).await };
            let mut start = Some(start.boxed_local());
            poll_fn(|context| {
                if let Some(start) = start.take() {
                    self.clocked(|| fixed.begin(start, context));
                }
                Poll::Ready(())
            })
            .await;
        }
        fixed
    }

    /// Begins what another shard asks for, here and now if it is its turn, and answers when it is on the medium.
    pub(super) fn append_for(self: &Rc<Self>, order: AppendOrder, reply: Answer) {
        let lane = &self.lane;
        let now = !lane.running.get() && lane.spent_us.get() < SLICE_US;
        if !now {
            lane.waiting.borrow_mut().push_back((order, reply));
            self.run_lane(None);
        } else if order.items.len() == 1 {
            let shard = self.clone();
            // A panic here must not take the mailbox with it: the sender is told that there is no answer.
            let mut work = Box::pin(contained("append", async move {
                let started = shard.start_append(order).await;
                reply.answer(Reply::Appended(settle_all(started).await));
            }));
            if once(&mut work).is_none() {
                spawn("append", work.map(drop));
            }
        } else {
            let shard = self.clone();
            let mut fixing = Box::pin(contained(
                "append",
                async move { shard.fix_order(order).await },
            ));
            match once(&mut fixing) {
                Some(Some(fixed)) => finish(fixed, reply),
                Some(None) => {}
                None => self.run_lane(Some((fixing.boxed_local(), reply))),
            }
        }
    }

    fn run_lane(self: &Rc<Self>, first: Option<(LocalBoxFuture<'static, Option<Fixed>>, Answer)>) {
        if self.lane.running.replace(true) {
            return;
        }
        let shard = self.clone();
        spawn_vital(self, "appends", Ending::Normal, async move {
            if let Some((fixing, reply)) = first
                && let Some(fixed) = fixing.await
            {
                finish(fixed, reply);
            }
            loop {
                shard.breathe().await;
                let next = shard.lane.waiting.borrow_mut().pop_front();
                let Some((order, reply)) = next else { break };
                if let Some(fixed) = contained("append", shard.fix_order(order)).await {
                    finish(fixed, reply);
                }
            }
            shard.lane.running.set(false);
        });
    }
}

/// Polls once; nothing when it has to wait.
fn once<T>(work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    match work.poll_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Answers once all of it is on the medium.
fn finish(fixed: Fixed, reply: Answer) {
    let mut work = Box::pin(contained("append", async move {
        let started = fixed.results().await;
        reply.answer(Reply::Appended(settle_all(started).await));
    }));
    if once(&mut work).is_none() {
        spawn("append", work.map(drop));
    }
}
