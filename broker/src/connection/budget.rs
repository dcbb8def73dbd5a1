//! A shard's memory for requests: bytes are taken before a frame is buffered and given back when it is answered.
//!
//! First come, first served. One request may always go on when nobody holds anything, however large it is: the size of
//! a single request has a limit of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Bytes that may be held at once.
pub struct Budget {
    limit: usize,
    held: Cell<usize>,
    next_ticket: Cell<u64>,
    line: RefCell<BTreeMap<u64, Option<Waker>>>,
}

/// Bytes held; given back when dropped.
pub struct Permit {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            held: Cell::new(0),
            next_ticket: Cell::new(0),
            line: RefCell::new(BTreeMap::new()),
        })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// The most that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A permit that holds nothing yet.
    pub fn permit(self: &Rc<Self>) -> Permit {
        Permit {
            budget: self.clone(),
            bytes: 0,
        }
    }

    fn fits(&self, bytes: usize, own: usize) -> bool {
        let held = self.held.get();
        held + bytes <= self.limit || held == own
    }

    fn wake_next(&self) {
        if let Some(mut first) = self.line.borrow_mut().first_entry()
            && let Some(waker) = first.get_mut().take()
        {
            waker.wake();
        }
    }
}

struct Ticket<'a> {
    budget: &'a Budget,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.budget.line.borrow_mut().remove(&self.number);
        self.budget.wake_next();
    }
}

impl Permit {
    /// Bytes held by this permit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits until the permit holds at least `bytes`.
    pub async fn grow_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return;
        }
        let budget = self.budget.clone();
        if !(budget.line.borrow().is_empty() && budget.fits(more, self.bytes)) {
            let number = budget.next_ticket.get();
            budget.next_ticket.set(number + 1);
            budget.line.borrow_mut().insert(number, None);
            let _ticket = Ticket {
                budget: &budget,
                number,
            };
            poll_fn(|context| {
                let mut line = budget.line.borrow_mut();
                let first = line
                    .first_key_value()
                    .is_some_and(|(first, _)| *first == number);
                if first && budget.fits(more, self.bytes) {
                    return Poll::Ready(());
                }
                line.insert(number, Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            budget.held.set(budget.held.get() + more);
        } else {
            budget.held.set(budget.held.get() + more);
        }
        self.bytes = bytes;
    }

    /// Takes as much of `bytes` as is free at once, and says how much the permit holds.
    pub fn take_up_to(&mut self, bytes: usize) -> usize {
        let free = self.budget.limit.saturating_sub(self.budget.held.get());
        let more = bytes.saturating_sub(self.bytes).min(free);
        self.budget.held.set(self.budget.held.get() + more);
        self.bytes += more;
        self.bytes
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let kept = self.bytes.min(bytes);
        drop(self.split(self.bytes - kept));
    }

    /// Moves the first `bytes` into a permit of their own, as far as they are held.
    pub fn split(&mut self, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit {
            budget: self.budget.clone(),
            bytes,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.held.set(self.budget.held.get() - self.bytes);
            self.budget.wake_next();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Bytes are given out up to the limit, in order, and come back; one oversized request passes alone.
    use super::*;
    use futures_util::FutureExt;
    use std::task::Context;

    #[test]
    fn waits_in_line_and_gives_back() {
        let budget = Budget::new(10);
        let mut first = budget.permit();
        assert!(first.grow_to(8).now_or_never().is_some());
        let mut second = budget.permit();
        let mut waiting = Box::pin(second.grow_to(5));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.poll_unpin(&mut context).is_pending());
        let mut third = budget.permit();
        assert!(
            third.grow_to(1).now_or_never().is_none(),
            "nobody overtakes"
        );
        drop(first);
        assert!(waiting.poll_unpin(&mut context).is_ready());
        drop(waiting);
        assert_eq!(budget.held(), 5);
        drop(second);
        assert_eq!(budget.held(), 0);
        assert!(budget.line.borrow().is_empty());
    }

    #[test]
    fn takes_what_is_free_without_waiting() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (budget.permit(), budget.permit());
        assert_eq!(first.take_up_to(7), 7);
        assert_eq!(second.take_up_to(7), 3);
        first.shrink_to(2);
        assert_eq!((first.bytes(), budget.held()), (2, 5));
        drop((first, second));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn one_oversized_request_passes_alone() {
        let budget = Budget::new(10);
        let mut large = budget.permit();
        assert!(large.grow_to(4).now_or_never().is_some());
        assert!(large.grow_to(50).now_or_never().is_some());
        let mut small = budget.permit();
        assert!(small.grow_to(1).now_or_never().is_none());
        let part = large.split(45);
        drop(part);
        assert!(small.grow_to(5).now_or_never().is_some());
    }
}
