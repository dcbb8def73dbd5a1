//! The ring through which other threads hand messages to a shard: bounded, many senders, one receiver, batched wake-ups.
//!
//! A receiver that is awake is not woken again: the first message after it went to sleep takes its waker, the rest of the batch finds
//! none. A sender that finds the ring full keeps its message and asks to be woken when there is room; nothing is ever dropped and
//! nobody blocks a thread. No locks; what a full ring means is for `exchange.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;

/// One shard's ring.
pub struct Mailbox<M> {
    ring: ArrayQueue<M>,
    receiver: AtomicWaker,
    /// By shard: it found the ring full and waits.
    blocked: Box<[AtomicBool]>,
}

impl<M> Mailbox<M> {
    /// A ring of `slots` messages for one of `shards` shards.
    pub fn new(slots: usize, shards: usize) -> Self {
        Self {
            ring: ArrayQueue::new(slots.max(1)),
            receiver: AtomicWaker::new(),
            blocked: (0..shards).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Puts a message in and wakes the receiver if it sleeps; a full ring gives the message back.
    pub fn push(&self, message: M) -> Result<(), M> {
        self.ring.push(message)?;
        self.receiver.wake();
        Ok(())
    }

    /// As [`Self::push`], for a shard: when the ring is full, the shard is woken once there is room.
    pub fn push_from(&self, sender: usize, message: M) -> Result<(), M> {
        let message = match self.push(message) {
            Ok(()) => return Ok(()),
            Err(message) => message,
        };
        // Raised before the second try: a receiver that makes room in between either lets this try succeed or sees the flag.
        self.blocked[sender].store(true, Ordering::SeqCst);
        self.push(message)
    }

    /// Takes the oldest message.
    pub fn pop(&self) -> Option<M> {
        self.ring.pop()
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Says whom to wake for the next message. The receiver must look at the ring again afterwards.
    pub fn register(&self, waker: &Waker) {
        self.receiver.register(waker);
    }

    /// Wakes the receiver without a message.
    pub fn wake(&self) {
        self.receiver.wake();
    }

    /// The shards that were waiting for room, each once; called by the receiver after it took messages out.
    pub fn take_blocked(&self) -> impl Iterator<Item = usize> {
        let waiting = |(shard, flag): (usize, &AtomicBool)| {
            (flag.load(Ordering::SeqCst) && flag.swap(false, Ordering::SeqCst)).then_some(shard)
        };
        self.blocked.iter().enumerate().filter_map(waiting)
    }
}

#[cfg(test)]
mod tests {
    //! A full ring refuses and remembers who asked; a sleeping receiver is woken once per batch.
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_batch_wakes_once() {
        let mailbox = Mailbox::new(8, 2);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        mailbox.register(&Waker::from(count.clone()));
        for message in 0..5 {
            assert_eq!(mailbox.push(message), Ok(()));
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(mailbox.len(), 5);
    }

    #[test]
    fn full_means_wait_and_be_told() {
        let mailbox = Mailbox::new(1, 3);
        assert_eq!(mailbox.push_from(2, "a"), Ok(()));
        assert_eq!(mailbox.take_blocked().count(), 0);
        assert_eq!(mailbox.push_from(2, "b"), Err("b"));
        assert_eq!(mailbox.pop(), Some("a"));
        assert_eq!(mailbox.take_blocked().collect::<Vec<_>>(), [2]);
        assert_eq!(mailbox.take_blocked().count(), 0);
        assert_eq!(mailbox.push_from(2, "b"), Ok(()));
    }
}
