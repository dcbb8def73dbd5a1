//! Events within one shard: a latch that stays raised, and a condition that wakes whoever waits for a change.
//!
//! Single-threaded, no timers, nothing kept of waiters that went away beyond their waker until the next wake.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
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

/// Wakes those who wait for a condition, to look again.
#[derive(Default)]
pub struct Changed {
    waiting: RefCell<Vec<Waker>>,
}

impl Changed {
    /// Something changed.
    pub fn notify(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Resolves with what `check` gives, asked now and after each change.
    pub async fn until<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| {
            if let Some(value) = check() {
                return Poll::Ready(value);
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    //! A signal wakes who waits and answers at once ever after.
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
}
