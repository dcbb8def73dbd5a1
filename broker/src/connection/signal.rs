//! Events within one shard: a latch that stays raised, and a condition that wakes whoever waits for a change.
//!
//! Single-threaded, no timers, nothing kept of waiters that went away.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Raised once, stays raised.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    changed: Changed,
}

impl Signal {
    /// Raises it and wakes everyone.
    pub fn raise(&self) {
        self.raised.set(true);
        self.changed.notify();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// Resolves once it is raised.
    pub async fn wait(&self) {
        self.changed.until(|| self.raised.get().then_some(())).await;
    }
}

/// Raises a signal when it goes, whichever way: who waits must not wait for a task that has panicked.
pub struct RaiseOnDrop(pub Rc<Signal>);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// Wakes those who wait for a condition, to look again.
#[derive(Default)]
pub struct Changed {
    waiting: RefCell<Vec<(u64, Waker)>>,
    next: Cell<u64>,
}

/// A place among those that wait, given up when the wait ends, whichever way: a waker keeps its whole task in memory.
struct Place<'a> {
    changed: &'a Changed,
    number: u64,
    taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            let mut waiting = self.changed.waiting.borrow_mut();
            waiting.retain(|(number, _)| *number != self.number);
        }
    }
}

impl Changed {
    /// Something changed.
    pub fn notify(&self) {
        let mut woken = self.waiting.take();
        for (_, waker) in woken.drain(..) {
            waker.wake();
        }
        // Its memory is used again: most who are woken wait again.
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            *waiting = woken;
        }
    }

    /// Resolves with what `check` gives, asked now and after each change.
    pub async fn until<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        let mut place = Place {
            changed: self,
            number: 0,
            taken: false,
        };
        poll_fn(|context| {
            if let Some(value) = check() {
                return Poll::Ready(value);
            }
            if !std::mem::replace(&mut place.taken, true) {
                place.number = self.next.get();
                self.next.set(place.number + 1);
            }
            let mut waiting = self.waiting.borrow_mut();
            match (waiting.iter_mut()).find(|(number, _)| *number == place.number) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => waiting.push((place.number, context.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    //! A signal wakes who waits and answers at once ever after; who has gone leaves nothing behind.
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_signal_stays_raised() {
        let signal = Signal::default();
        assert!(signal.wait().now_or_never().is_none() && !signal.is_raised());
        signal.raise();
        assert!(signal.is_raised());
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_some());
    }

    #[test]
    fn who_no_longer_waits_leaves_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..3 {
            let mut waits = Box::pin(signal.wait());
            assert!((&mut waits).now_or_never().is_none());
            assert_eq!(signal.changed.waiting.borrow().len(), 1);
            drop(waits);
            assert!(signal.changed.waiting.borrow().is_empty());
        }
    }
}
