//! A shard's side of the traffic between shards: outgoing queues, calls that wait for a reply, and the loop that takes messages in.
//!
//! Two kinds of traffic, so that shards which saturate each other cannot deadlock. *Requests* wait ([`Exchange::room`]) while the queue towards
//! a shard is long: that is the back-pressure, and it holds up only the connection that asked. *Replies* never wait: there are no more of them than requests
//! that were let through, so the queue they may form is bounded by those. The receiving loop never waits for room, so every shard always drains
//! its own mailbox. Wakers of tasks never cross threads (only the loop's does): a runtime's own queue for foreign wakers is bounded, and two shards
//! spinning on each other's would be exactly the deadlock avoided here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::mailbox::Mailbox;

/// Requests towards one shard that may wait on our side before senders are held up.
const OUTBOX_REQUESTS_MAX: usize = 128;
/// Messages taken in at a time before other tasks get their turn.
const RECEIVE_BATCH: usize = 256;

/// The other shard did not answer: the task that should have done it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard that should have answered did not; see its log for the reason")]
pub struct ShardUnavailable;

/// A message with where it comes from.
pub struct Envelope<Q, R> {
    /// The sending shard.
    pub from: usize,
    /// What it says.
    pub content: Content<Q, R>,
}

/// What goes through a mailbox.
pub enum Content<Q, R> {
    /// Something to do; `call` is where the reply goes, if one is expected.
    Request {
        /// The call at the sender.
        call: Option<u32>,
        /// What to do.
        request: Q,
    },
    /// The answer to a call; none: it will never come.
    Reply {
        /// The call at the receiver of this message.
        call: u32,
        /// The answer.
        reply: Option<R>,
    },
    /// The caller no longer wants the answer.
    Cancel {
        /// The call at the sender.
        call: u32,
    },
}

/// The mailboxes of all shards.
pub type Mailboxes<Q, R> = Arc<[Mailbox<Envelope<Q, R>>]>;

struct Outbox<Q, R> {
    queue: VecDeque<Content<Q, R>>,
    /// Who waits for room, by when they came; each once, and gone when it waits no longer.
    waiting: BTreeMap<u64, Waker>,
}

/// A task's place among those that wait for room, given up when dropped.
struct Waiter<'a, Q, R> {
    exchange: &'a Exchange<Q, R>,
    to: usize,
    key: Option<u64>,
}

impl<Q, R> Drop for Waiter<'_, Q, R> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut outboxes = self.exchange.outboxes.borrow_mut();
        let waiting = &mut outboxes[self.to].waiting;
        // Who was woken and may have left without using the room passes the word on.
        if waiting.remove(&key).is_none()
            && let Some((_, next)) = waiting.pop_first()
        {
            next.wake();
        }
    }
}

enum Call<R> {
    Waiting(Option<Waker>),
    Answered(Option<R>),
    Abandoned,
}

/// One shard's end; lives on its thread.
pub struct Exchange<Q, R> {
    index: usize,
    mailboxes: Mailboxes<Q, R>,
    outboxes: RefCell<Vec<Outbox<Q, R>>>,
    calls: RefCell<Slab<Call<R>>>,
    loop_waker: RefCell<Option<Waker>>,
    held_up: Cell<u64>,
}

impl<Q, R> Exchange<Q, R> {
    /// The end of shard `index`.
    pub fn new(index: usize, mailboxes: Mailboxes<Q, R>) -> Self {
        let outbox = || Outbox {
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
        };
        Self {
            index,
            outboxes: RefCell::new(mailboxes.iter().map(|_| outbox()).collect()),
            mailboxes,
            calls: RefCell::new(Slab::new()),
            loop_waker: RefCell::new(None),
            held_up: Cell::new(0),
        }
    }

    /// Requests that found the way to a shard full and had to wait.
    pub fn held_up(&self) -> u64 {
        self.held_up.get()
    }

    /// Waits until a request towards `to` may be posted.
    pub async fn room(&self, to: usize) {
        let mut waiter = Waiter {
            exchange: self,
            to,
            key: None,
        };
        poll_fn(|context| {
            let mut outboxes = self.outboxes.borrow_mut();
            let outbox = &mut outboxes[to];
            if outbox.queue.len() < OUTBOX_REQUESTS_MAX {
                return Poll::Ready(());
            }
            // Counts who had to wait, and is each one's key.
            let key = *waiter.key.get_or_insert_with(|| {
                self.held_up.set(self.held_up.get() + 1);
                self.held_up.get()
            });
            outbox.waiting.insert(key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Posts a request without waiting for room or an answer.
    pub fn post(&self, to: usize, request: Q) {
        self.put(
            to,
            Content::Request {
                call: None,
                request,
            },
        );
    }

    /// Waits for room, posts the request, and gives what to await for the reply. The order among requests to `to` is fixed on return.
    pub async fn call(self: &Rc<Self>, to: usize, request: Q) -> Pending<Q, R> {
        self.room(to).await;
        self.call_now(to, request)
    }

    /// As [`Self::call`] without waiting for room: for the few requests whose order among all senders of this shard matters.
    pub fn call_now(self: &Rc<Self>, to: usize, request: Q) -> Pending<Q, R> {
        let call = self.calls.borrow_mut().insert(Call::Waiting(None)) as u32;
        self.put(
            to,
            Content::Request {
                call: Some(call),
                request,
            },
        );
        Pending {
            exchange: self.clone(),
            to,
            call,
            cancels: false,
        }
    }

    /// Who must be answered for call `call` of shard `from`; answers with "unavailable" if dropped.
    pub fn reply_to(self: &Rc<Self>, from: usize, call: Option<u32>) -> ReplyTo<Q, R> {
        ReplyTo {
            exchange: self.clone(),
            from,
            call,
        }
    }

    fn put(&self, to: usize, content: Content<Q, R>) {
        let mut outboxes = self.outboxes.borrow_mut();
        let outbox = &mut outboxes[to];
        if outbox.queue.is_empty() {
            let envelope = Envelope {
                from: self.index,
                content,
            };
            if let Err(envelope) = self.mailboxes[to].push_from(self.index, envelope) {
                outbox.queue.push_back(envelope.content);
            }
        } else {
            outbox.queue.push_back(content);
        }
    }

    /// Moves what waited into the rings that have room again, and lets requests that were held up go on.
    fn flush(&self) {
        for (to, outbox) in self.outboxes.borrow_mut().iter_mut().enumerate() {
            while let Some(content) = outbox.queue.pop_front() {
                let envelope = Envelope {
                    from: self.index,
                    content,
                };
                if let Err(envelope) = self.mailboxes[to].push_from(self.index, envelope) {
                    outbox.queue.push_front(envelope.content);
                    break;
                }
            }
            let free = OUTBOX_REQUESTS_MAX.saturating_sub(outbox.queue.len());
            for _ in 0..free {
                let Some((_, waker)) = outbox.waiting.pop_first() else {
                    break;
                };
                waker.wake();
            }
        }
    }

    /// Takes messages in for ever: requests go to `handle` in the order they were sent, which must only start the work. Replies find their call.
    pub async fn receive(self: Rc<Self>, mut handle: impl FnMut(usize, Option<u32>, Incoming<Q>)) {
        let mailbox = &self.mailboxes[self.index];
        poll_fn(|context: &mut Context<'_>| {
            mailbox.register(context.waker());
            *self.loop_waker.borrow_mut() = Some(context.waker().clone());
            let mut taken = 0;
            while taken < RECEIVE_BATCH
                && let Some(envelope) = mailbox.pop()
            {
                taken += 1;
                match envelope.content {
                    Content::Request { call, request } => {
                        handle(envelope.from, call, Incoming::Request(request));
                    }
                    Content::Cancel { call } => handle(envelope.from, Some(call), Incoming::Cancel),
                    Content::Reply { call, reply } => self.answer(call, reply),
                }
            }
            if taken > 0 {
                for sender in mailbox.take_blocked() {
                    self.mailboxes[sender].wake();
                }
            }
            self.flush();
            if mailbox.len() > 0 {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
        .await
    }

    fn answer(&self, call: u32, reply: Option<R>) {
        let mut calls = self.calls.borrow_mut();
        let Some(slot) = calls.get_mut(call as usize) else {
            return;
        };
        match std::mem::replace(slot, Call::Answered(reply)) {
            Call::Waiting(Some(waker)) => waker.wake(),
            Call::Waiting(None) | Call::Answered(_) => {}
            Call::Abandoned => {
                calls.remove(call as usize);
            }
        }
    }
}

/// What the receiving loop hands out.
pub enum Incoming<Q> {
    /// Something to do.
    Request(Q),
    /// The caller of this call has gone.
    Cancel,
}

/// A reply to come.
pub struct Pending<Q, R> {
    exchange: Rc<Exchange<Q, R>>,
    to: usize,
    call: u32,
    cancels: bool,
}

impl<Q, R> Pending<Q, R> {
    /// Tells the other shard when this is dropped before the reply is there.
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels = true;
        self
    }
}

impl<Q, R> Future for Pending<Q, R> {
    type Output = Result<R, ShardUnavailable>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut calls = self.exchange.calls.borrow_mut();
        match calls.get_mut(self.call as usize) {
            Some(Call::Answered(reply)) => Poll::Ready(reply.take().ok_or(ShardUnavailable)),
            Some(slot @ (Call::Waiting(_) | Call::Abandoned)) => {
                *slot = Call::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            None => Poll::Ready(Err(ShardUnavailable)),
        }
    }
}

impl<Q, R> Drop for Pending<Q, R> {
    #[inline]
    fn drop(&mut self) {
        let mut calls = self.exchange.calls.borrow_mut();
        match calls.get_mut(self.call as usize) {
            Some(slot @ Call::Waiting(_)) => *slot = Call::Abandoned,
            _ => {
                calls.try_remove(self.call as usize);
                return;
            }
        }
        drop(calls);
        if self.cancels {
            self.exchange
                .put(self.to, Content::Cancel { call: self.call });
        }
    }
}

/// The duty to answer one call.
pub struct ReplyTo<Q, R> {
    exchange: Rc<Exchange<Q, R>>,
    from: usize,
    call: Option<u32>,
}

impl<Q, R> ReplyTo<Q, R> {
    /// Answers, if an answer is expected.
    #[inline]
    pub fn answer(mut self, reply: R) {
        if let Some(call) = self.call.take() {
            self.exchange.put(
                self.from,
                Content::Reply {
                    call,
                    reply: Some(reply),
                },
            );
        }
    }
}

impl<Q, R> Drop for ReplyTo<Q, R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.exchange
                .put(self.from, Content::Reply { call, reply: None });
        }
    }
}

#[cfg(test)]
mod tests {
    //! Two shards with mailboxes of one slot that call each other all at once: every call is answered, in order; a lost duty is told.
    use super::*;
    use futures_util::FutureExt;

    type Shard = Rc<Exchange<u32, u32>>;

    fn two() -> (Shard, Shard) {
        let mailboxes: Mailboxes<u32, u32> = (0..2).map(|_| Mailbox::new(1, 2)).collect();
        (
            Rc::new(Exchange::new(0, mailboxes.clone())),
            Rc::new(Exchange::new(1, mailboxes)),
        )
    }

    /// The receiving loop of a shard that answers each request with its double, and 13 not at all.
    fn serving(shard: &Shard, seen: &Rc<RefCell<Vec<u32>>>) -> Pin<Box<dyn Future<Output = ()>>> {
        let (replies, seen) = (shard.clone(), seen.clone());
        Box::pin(shard.clone().receive(move |from, call, incoming| {
            let Incoming::Request(request) = incoming else {
                return;
            };
            seen.borrow_mut().push(request);
            let reply = replies.reply_to(from, call);
            if request != 13 {
                reply.answer(request * 2);
            }
        }))
    }

    #[test]
    fn saturated_both_ways_all_calls_are_answered() {
        let (a, b) = two();
        let seen: [Rc<RefCell<Vec<u32>>>; 2] = Default::default();
        let mut loops = [serving(&a, &seen[0]), serving(&b, &seen[1])];
        let calls = |shard: &Shard, to| (0..100).map(|n| shard.call_now(to, n)).collect::<Vec<_>>();
        let pending = [calls(&a, 1), calls(&b, 0)];
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            for one in &mut loops {
                assert!(one.as_mut().poll(&mut context).is_pending());
            }
        }
        for pending in pending {
            for (n, reply) in pending.into_iter().enumerate() {
                let expected = if n == 13 {
                    Err(ShardUnavailable)
                } else {
                    Ok(n as u32 * 2)
                };
                assert_eq!(reply.now_or_never(), Some(expected));
            }
        }
        for seen in seen {
            assert_eq!(*seen.borrow(), (0..100).collect::<Vec<_>>());
        }
        assert!(a.calls.borrow().is_empty() && b.calls.borrow().is_empty());
    }

    #[test]
    fn requests_wait_while_the_way_is_full() {
        let (a, b) = two();
        let seen: Rc<RefCell<Vec<u32>>> = Rc::default();
        let full = OUTBOX_REQUESTS_MAX as u32 + 1;
        for n in 0..full {
            assert!(a.room(1).now_or_never().is_some());
            a.post(1, n);
        }
        assert!(a.room(1).now_or_never().is_none());
        assert_eq!(a.held_up(), 1);
        let mut loops = [serving(&a, &Rc::default()), serving(&b, &seen)];
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            for one in loops.iter_mut().rev() {
                assert!(one.as_mut().poll(&mut context).is_pending());
            }
        }
        assert!(a.room(1).now_or_never().is_some());
        assert!(!seen.borrow().is_empty());
    }

    #[test]
    fn who_waits_for_room_is_there_once_and_not_after_it_left() {
        let (a, _b) = two();
        for n in 0..=OUTBOX_REQUESTS_MAX as u32 {
            a.post(1, n);
        }
        let mut context = Context::from_waker(Waker::noop());
        let (mut stays, mut leaves) = (Box::pin(a.room(1)), Box::pin(a.room(1)));
        for _ in 0..3 {
            assert!(stays.as_mut().poll(&mut context).is_pending());
            assert!(leaves.as_mut().poll(&mut context).is_pending());
        }
        let waiting = || a.outboxes.borrow()[1].waiting.len();
        assert_eq!((waiting(), a.held_up()), (2, 2));
        drop(leaves);
        assert_eq!(waiting(), 1);
    }
}
