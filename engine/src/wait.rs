//! Waiting inside one shard: a signal for one task, an event for many, and waiters ordered by the offset they wait for.
//!
//! All of it is single-threaded, needs no timer, costs nothing while nobody waits, and forgets a waiter that is dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakes the one task that sleeps on it; raising it while nobody sleeps is remembered once.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the sleeper, or the next one to come.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Resolves once the signal has been raised since the last time this resolved.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

/// Wakes everybody who waited before it happened.
#[derive(Default)]
pub(crate) struct Event {
    happened: Cell<u64>,
    next_waiter: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

impl Event {
    /// It happens now.
    pub fn happen(&self) {
        self.happened.set(self.happened.get() + 1);
        for waker in std::mem::take(&mut *self.wakers.borrow_mut()).into_values() {
            waker.wake();
        }
    }

    /// Resolves when it next happens after this call.
    pub fn next(&self) -> NextEvent<'_> {
        NextEvent {
            event: self,
            seen: self.happened.get(),
            waiter: None,
        }
    }
}

/// See [`Event::next`].
pub(crate) struct NextEvent<'a> {
    event: &'a Event,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for NextEvent<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let event = self.event;
        if event.happened.get() != self.seen {
            return Poll::Ready(());
        }
        let waiter = *self.waiter.get_or_insert_with(|| {
            let waiter = event.next_waiter.get();
            event.next_waiter.set(waiter + 1);
            waiter
        });
        event
            .wakers
            .borrow_mut()
            .insert(waiter, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for NextEvent<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.event.wakers.borrow_mut().remove(&waiter);
        }
    }
}

/// Tasks waiting for an offset to be reached, in order of that offset: waking costs as much as there is to wake.
#[derive(Default)]
pub(crate) struct OffsetWaiters {
    next_waiter: Cell<u64>,
    wakers: RefCell<BTreeMap<(i64, u64), Waker>>,
}

impl OffsetWaiters {
    /// Wakes everyone who waits for `offset` or less.
    pub fn reached(&self, offset: i64) {
        let mut wakers = self.wakers.borrow_mut();
        if wakers
            .first_key_value()
            .is_none_or(|((first, _), _)| *first > offset)
        {
            return;
        }
        let later = match offset.checked_add(1) {
            Some(next) => wakers.split_off(&(next, 0)),
            None => BTreeMap::new(),
        };
        let reached = std::mem::replace(&mut *wakers, later);
        drop(wakers);
        for waker in reached.into_values() {
            waker.wake();
        }
    }

    /// Resolves with what `check` gives, asked now and each time `offset` is reached.
    pub fn wait<'a, T, F: FnMut() -> Option<T> + Unpin>(
        &'a self,
        offset: i64,
        check: F,
    ) -> OffsetWait<'a, F> {
        OffsetWait {
            waiters: self,
            offset,
            waiter: None,
            check,
        }
    }
}

/// See [`OffsetWaiters::wait`].
pub(crate) struct OffsetWait<'a, F> {
    waiters: &'a OffsetWaiters,
    offset: i64,
    waiter: Option<u64>,
    check: F,
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for OffsetWait<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = (self.check)() {
            return Poll::Ready(value);
        }
        let waiters = self.waiters;
        let waiter = *self.waiter.get_or_insert_with(|| {
            let waiter = waiters.next_waiter.get();
            waiters.next_waiter.set(waiter + 1);
            waiter
        });
        let key = (self.offset, waiter);
        waiters
            .wakers
            .borrow_mut()
            .insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl<F> Drop for OffsetWait<'_, F> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.waiters
                .wakers
                .borrow_mut()
                .remove(&(self.offset, waiter));
        }
    }
}

/// Gives everybody else who is ready a turn before going on.
pub(crate) fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// First come, first served: who holds the turn is alone until it is dropped.
#[derive(Default)]
pub(crate) struct Turnstile {
    next_ticket: Cell<u64>,
    /// Tickets waiting or holding the turn, the holder first.
    line: RefCell<BTreeMap<u64, Option<Waker>>>,
}

/// The right to be in; see [`Turnstile::enter`].
pub(crate) struct Turn<'a> {
    turnstile: &'a Turnstile,
    ticket: u64,
}

impl Turnstile {
    /// Whether nobody is in or waiting.
    pub fn is_free(&self) -> bool {
        self.line.borrow().is_empty()
    }

    /// Takes a place in line at once; the future resolves when it is this one's turn.
    pub fn enter(&self) -> Entering<'_> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.line.borrow_mut().insert(ticket, None);
        Entering {
            turn: Some(Turn {
                turnstile: self,
                ticket,
            }),
        }
    }
}

/// See [`Turnstile::enter`].
pub(crate) struct Entering<'a> {
    turn: Option<Turn<'a>>,
}

impl<'a> Future for Entering<'a> {
    type Output = Turn<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn<'a>> {
        if let Some(turn) = &self.turn {
            let mut line = turn.turnstile.line.borrow_mut();
            if line.first_key_value().map(|(ticket, _)| *ticket) != Some(turn.ticket) {
                line.insert(turn.ticket, Some(context.waker().clone()));
                return Poll::Pending;
            }
        }
        match self.turn.take() {
            Some(turn) => Poll::Ready(turn),
            None => Poll::Pending,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut line = self.turnstile.line.borrow_mut();
        line.remove(&self.ticket);
        let next = line
            .first_entry()
            .and_then(|mut entry| entry.get_mut().take());
        drop(line);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Waiters are woken by what they wait for and by nothing else, in order, and leave nothing behind when dropped.
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_signal_is_remembered_once() {
        let signal = Signal::default();
        assert!(signal.wait().now_or_never().is_none());
        signal.raise();
        signal.raise();
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_none());
    }

    #[test]
    fn an_event_reaches_those_who_waited_before() {
        let event = Event::default();
        let waiting = event.next();
        event.happen();
        assert!(waiting.now_or_never().is_some());
        assert!(event.next().now_or_never().is_none());
        assert!(
            event.wakers.borrow().is_empty(),
            "a dropped waiter is forgotten"
        );
    }

    #[test]
    fn the_largest_offset_wakes_everybody() {
        let waiters = OffsetWaiters::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut last = waiters.wait(i64::MAX, || None::<()>);
        assert!(last.poll_unpin(&mut context).is_pending());
        waiters.reached(i64::MAX - 1);
        assert_eq!(waiters.wakers.borrow().len(), 1);
        waiters.reached(i64::MAX);
        assert!(waiters.wakers.borrow().is_empty());
    }

    #[test]
    fn offsets_wake_only_what_they_reach() {
        let waiters = OffsetWaiters::default();
        let reached = Cell::new(0i64);
        let check = |offset: i64| {
            let reached = &reached;
            move || (reached.get() >= offset).then_some(offset)
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut three = waiters.wait(3, check(3));
        let mut nine = waiters.wait(9, check(9));
        assert!(three.poll_unpin(&mut context).is_pending());
        assert!(nine.poll_unpin(&mut context).is_pending());
        reached.set(5);
        waiters.reached(5);
        assert_eq!(waiters.wakers.borrow().len(), 1);
        assert_eq!(three.poll_unpin(&mut context), Poll::Ready(3));
        assert!(nine.poll_unpin(&mut context).is_pending());
        drop(nine);
        assert!(waiters.wakers.borrow().is_empty());
    }

    #[test]
    fn turns_are_taken_in_order() {
        let turnstile = Turnstile::default();
        let first = turnstile.enter().now_or_never().expect("free");
        let mut second = turnstile.enter();
        let third = turnstile.enter();
        let mut context = Context::from_waker(Waker::noop());
        assert!(second.poll_unpin(&mut context).is_pending());
        drop(third);
        drop(first);
        assert!(second.poll_unpin(&mut context).is_ready());
        assert!(turnstile.is_free(), "the turn was dropped with its result");
    }
}
