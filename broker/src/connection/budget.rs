//! A shard's memory for what connections hold: bytes are taken before they are buffered, or as soon as they are known, and given back when they are free.
//!
//! First come, first served. What is in the pool never exceeds the limit but for what is charged without asking. One permit at a time may leave the
//! pool and grow beside it, so that frames which each hold a part and wait for the rest cannot wait for each other, and so that one larger than the
//! pool's share passes: the size of a single request has a limit of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A permit may always have this much of the pool, or all of a smaller one.
const SHARE_BYTES_MIN: usize = 2 << 20;

/// Bytes that may be held at once.
pub struct Budget {
    limit: usize,
    pooled: Cell<usize>,
    /// What the one permit holds that has left the pool; none: nobody has.
    beside: Cell<Option<usize>>,
    next_ticket: Cell<u64>,
    line: RefCell<BTreeMap<u64, Option<Waker>>>,
}

/// One holder's part in a budget: a connection's.
pub struct Account {
    budget: Rc<Budget>,
    held: Cell<usize>,
    progress: Cell<u64>,
}

/// Bytes held; given back when dropped.
pub struct Permit {
    account: Rc<Account>,
    bytes: usize,
    beside: bool,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            pooled: Cell::new(0),
            beside: Cell::new(None),
            next_ticket: Cell::new(0),
            line: RefCell::new(BTreeMap::new()),
        })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.pooled.get() + self.beside.get().unwrap_or(0)
    }

    /// The most that may be held in the pool.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of the pool that nobody holds.
    pub fn free(&self) -> usize {
        self.limit.saturating_sub(self.pooled.get())
    }

    /// The most of the pool that one holder should have.
    pub fn share(&self) -> usize {
        (self.limit / 4).max(self.limit.min(SHARE_BYTES_MIN))
    }

    /// Whether somebody waits for what others hold.
    pub fn is_contended(&self) -> bool {
        !self.line.borrow().is_empty()
    }

    /// A holder that holds nothing yet.
    pub fn account(self: &Rc<Self>) -> Rc<Account> {
        Rc::new(Account {
            budget: self.clone(),
            held: Cell::new(0),
            progress: Cell::new(0),
        })
    }

    fn wake_next(&self) {
        if let Some(mut first) = self.line.borrow_mut().first_entry()
            && let Some(waker) = first.get_mut().take()
        {
            waker.wake();
        }
    }
}

impl Account {
    /// A permit that holds nothing yet.
    pub fn permit(self: &Rc<Self>) -> Permit {
        Permit {
            account: self.clone(),
            bytes: 0,
            beside: false,
        }
    }

    /// Bytes held by all its permits.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// The budget it is part of.
    pub fn budget(&self) -> &Rc<Budget> {
        &self.budget
    }

    /// Grows whenever the holder gave something back or came nearer to it.
    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// Notes that the holder is nearer to giving something back.
    pub fn note_progress(&self) {
        self.progress.set(self.progress.get().wrapping_add(1));
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
        if self.try_grow_to(bytes) {
            return;
        }
        let budget = self.account.budget.clone();
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
            if first && (self.fits(bytes) || self.step_beside()) {
                return Poll::Ready(());
            }
            line.insert(number, Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        self.charge_to(bytes);
    }

    /// Holds at least `bytes` if that needs no waiting.
    pub fn try_grow_to(&mut self, bytes: usize) -> bool {
        let now = bytes <= self.bytes
            || self.beside
            || (!self.account.budget.is_contended() && self.fits(bytes));
        if now {
            self.charge_to(bytes);
        }
        now
    }

    fn fits(&self, bytes: usize) -> bool {
        let budget = &self.account.budget;
        bytes <= budget.share() && bytes - self.bytes <= budget.free()
    }

    /// Leaves the pool if nobody else is out of it.
    fn step_beside(&mut self) -> bool {
        let budget = &self.account.budget;
        if budget.beside.get().is_some() {
            return false;
        }
        budget.beside.set(Some(self.bytes));
        budget.pooled.set(budget.pooled.get() - self.bytes);
        self.beside = true;
        true
    }

    /// Holds at least `bytes`, whether there is room or not: they are in memory already.
    pub fn charge_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.account.held.set(self.account.held.get() + more);
        let budget = &self.account.budget;
        match self.beside {
            true => budget
                .beside
                .set(budget.beside.get().map(|held| held + more)),
            false => budget.pooled.set(budget.pooled.get() + more),
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        if less == 0 && !(self.beside && self.bytes == 0) {
            return;
        }
        self.bytes -= less;
        self.account.held.set(self.account.held.get() - less);
        self.account.note_progress();
        let budget = &self.account.budget;
        if self.beside {
            self.beside = self.bytes > 0;
            budget.beside.set(self.beside.then_some(self.bytes));
        } else {
            budget.pooled.set(budget.pooled.get() - less);
        }
        budget.wake_next();
    }

    /// Moves all that is held into a permit of its own.
    pub fn take(&mut self) -> Permit {
        let empty = self.account.permit();
        std::mem::replace(self, empty)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    //! Bytes are given out up to the limit, in order, and come back; one holder at a time passes beside the pool.
    use super::*;
    use futures_util::FutureExt;
    use std::task::Context;

    fn permit(budget: &Rc<Budget>) -> Permit {
        budget.account().permit()
    }

    #[test]
    fn waits_in_line_and_gives_back() {
        let budget = Budget::new(10);
        let (mut large, mut first) = (permit(&budget), permit(&budget));
        assert!(large.grow_to(50).now_or_never().is_some());
        assert!(first.grow_to(8).now_or_never().is_some());
        let mut second = permit(&budget);
        let mut waiting = Box::pin(second.grow_to(5));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.poll_unpin(&mut context).is_pending());
        assert!(budget.is_contended());
        let mut third = permit(&budget);
        assert!(
            third.grow_to(1).now_or_never().is_none(),
            "nobody overtakes"
        );
        drop(first);
        assert!(waiting.poll_unpin(&mut context).is_ready());
        drop(waiting);
        assert_eq!(budget.held(), 55);
        drop((second, large));
        assert_eq!(budget.held(), 0);
        assert!(!budget.is_contended());
    }

    #[test]
    fn one_at_a_time_passes_beside_the_pool() {
        let budget = Budget::new(10);
        let (mut one, mut other, mut third) = (permit(&budget), permit(&budget), permit(&budget));
        assert!(one.try_grow_to(5) && other.try_grow_to(5));
        // Each has a part and wants the rest: one goes on, and its place in the pool is free.
        assert!(one.grow_to(9).now_or_never().is_some());
        assert_eq!((budget.held(), budget.free()), (14, 5));
        assert!(third.grow_to(5).now_or_never().is_some());
        assert!(other.grow_to(6).now_or_never().is_none());
        assert!(one.grow_to(90).now_or_never().is_some());
        let mut moved = one.take();
        assert_eq!((one.bytes(), moved.bytes()), (0, 90));
        assert!(other.grow_to(6).now_or_never().is_none());
        moved.shrink_to(1);
        assert!(other.grow_to(6).now_or_never().is_none());
        drop(moved);
        assert!(other.grow_to(6).now_or_never().is_some());
        drop((other, third));
        assert_eq!((budget.held(), budget.free()), (0, 10));
    }

    #[test]
    fn nobody_has_all_of_a_large_pool() {
        let budget = Budget::new(16 << 20);
        let mut permit = permit(&budget);
        assert!(permit.try_grow_to(budget.share()));
        assert!(!permit.try_grow_to(budget.share() + 1));
        assert!(permit.grow_to(budget.share() + 1).now_or_never().is_some());
        assert_eq!(budget.free(), budget.limit());
    }

    #[test]
    fn an_account_knows_what_it_holds_and_that_it_goes_on() {
        let budget = Budget::new(10);
        let account = budget.account();
        let (mut first, mut second) = (account.permit(), account.permit());
        first.charge_to(4);
        second.charge_to(16);
        assert_eq!((account.held(), budget.held(), budget.free()), (20, 20, 0));
        let before = account.progress();
        second.shrink_to(3);
        assert!(account.progress() != before);
        drop((first, second));
        assert_eq!((account.held(), budget.held()), (0, 0));
    }
}
