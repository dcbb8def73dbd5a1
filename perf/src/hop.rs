//! The hop between shards: a request goes through another shard's mailbox, its reply comes back through ours.
//!
//! Both ends run on one thread and wakers do nothing, so that what is counted is the exchange: queues, calls, the ring and its atomics. What a wake-up across
//! threads costs is the operating system's and is seen only against the clock.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::shard::exchange::{Exchange, Incoming, Mailboxes};
use crate::shard::mailbox::Mailbox;

/// Slots of a ring, as the broker has them.
const SLOTS: usize = 1024;

/// Two shards of which one calls and the other answers.
pub struct Hop {
    caller: Rc<Exchange<u64, u64>>,
    loops: [Pin<Box<dyn Future<Output = ()>>>; 2],
}

impl Hop {
    /// Two shards at rest.
    #[expect(clippy::new_without_default, reason = "a path is made on purpose")]
    pub fn new() -> Self {
        let mailboxes: Mailboxes<u64, u64> = (0..2).map(|_| Mailbox::new(SLOTS, 2)).collect();
        let shard = |index| Rc::new(Exchange::new(index, mailboxes.clone()));
        let (caller, answerer) = (shard(0), shard(1));
        let replies = answerer.clone();
        let answering = answerer.receive(move |from, call, incoming| {
            if let Incoming::Request(request) = incoming {
                replies.reply_to(from, call).answer(request + 1);
            }
        });
        let mut hop = Self {
            loops: [
                Box::pin(answering),
                Box::pin(caller.clone().receive(|_, _, _| {})),
            ],
            caller,
        };
        // Queues have grown to what they need.
        hop.run(100);
        hop
    }

    /// `calls` calls at once and their replies; gives the sum of those.
    pub fn run(&mut self, calls: u64) -> u64 {
        let mut context = Context::from_waker(Waker::noop());
        let mut pending: Vec<_> = (0..calls)
            .map(|number| self.caller.call_now(1, number))
            .collect();
        for one in &mut self.loops {
            assert!(one.as_mut().poll(&mut context).is_pending());
        }
        pending
            .iter_mut()
            .map(|reply| match Pin::new(reply).poll(&mut context) {
                std::task::Poll::Ready(Ok(reply)) => reply,
                other => panic!("both loops ran: {other:?}"),
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    //! What is counted is a whole hop: every call is answered.
    use super::Hop;

    #[test]
    fn every_call_is_answered() {
        assert_eq!(Hop::new().run(100), (1..=100).sum());
    }
}
