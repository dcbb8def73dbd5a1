//! What of a coordinator waits to be written, in the order of the log, and what of it is written next. Pure.

use std::collections::VecDeque;

use ringlog_coordinator::{Now, Record, Token};
use ringlog_engine::batch::EndTransactionMarker;
use ringlog_engine::producer_state::VerificationGuard;
use ringlog_net::{ErrorCode, Uuid};
use tokio::sync::oneshot;

use super::machine::{Machine, Output};

/// Records of several events become one batch up to this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Changes the state when its turn has come.
pub(super) type Act<M> = Box<dyn FnOnce(&mut M, Now, Uuid, &mut Output<M>)>;

/// What waits for its turn to be written.
pub(super) enum Event<M: Machine> {
    /// The state has changed: its records and what follows from them.
    Changed(Output<M>),
    /// A request whose records belong to a producer's transaction. The log may refuse them, so the state changes only in its turn.
    InTransaction {
        token: Token,
        producer: (i64, i16),
        guard: Option<VerificationGuard>,
        act: Act<M>,
    },
    /// A request that came while one of those was waiting: the order in which they change the state is the order in the log.
    Deferred { token: Token, act: Act<M> },
    /// The end of a producer's transaction.
    Marker {
        marker: EndTransactionMarker,
        transaction_version: i8,
        done: oneshot::Sender<ErrorCode>,
    },
}

impl<M: Machine> Event<M> {
    /// Whether it changes the state only in its turn, so that what comes later may not change it before.
    fn is_still_to_act(&self) -> bool {
        matches!(self, Event::InTransaction { .. } | Event::Deferred { .. })
    }
}

/// What is written next.
pub(super) enum Turn<M: Machine> {
    /// Events whose records become one batch.
    Batch(Vec<Output<M>>, Vec<Record>),
    /// Any other event, alone.
    Alone(Event<M>),
}

/// The events that wait.
pub(super) struct Queue<M: Machine> {
    events: VecDeque<Event<M>>,
    still_to_act: usize,
}

impl<M: Machine> Default for Queue<M> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            still_to_act: 0,
        }
    }
}

impl<M: Machine> Queue<M> {
    pub(super) fn push(&mut self, event: Event<M>) {
        self.still_to_act += usize::from(event.is_still_to_act());
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event<M>> {
        let event = self.events.pop_front()?;
        self.still_to_act -= usize::from(event.is_still_to_act());
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether a request that comes now must not change the state yet.
    pub(super) fn must_wait_behind(&self) -> bool {
        self.still_to_act > 0
    }

    /// All of it, for whoever gives it up.
    pub(super) fn into_events(self) -> impl Iterator<Item = Event<M>> {
        self.events.into_iter()
    }

    /// The events that are written next; as many as become one batch, and one at least.
    pub(super) fn next_turn(&mut self) -> Option<Turn<M>> {
        let (mut outputs, mut records) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some(Event::Changed(output)) = self.events.front() {
            let more: usize = output.commands.records.iter().map(size).sum();
            bytes += more;
            // What writes nothing goes with whatever is before it.
            if more > 0 && !records.is_empty() && bytes > BATCH_BYTES {
                break;
            }
            let Some(Event::Changed(mut output)) = self.pop() else {
                break;
            };
            records.append(&mut output.commands.records);
            outputs.push(output);
        }
        match outputs.is_empty() {
            true => self.pop().map(Turn::Alone),
            false => Some(Turn::Batch(outputs, records)),
        }
    }
}

pub(super) fn size(record: &Record) -> usize {
    record.key.len() + record.value.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    //! Events become batches in their order and up to a size; nothing goes past one that is still to change the state.
    use bytes::Bytes;
    use ringlog_coordinator::groups::GroupCoordinator;

    use super::*;

    fn changed(bytes: usize) -> Event<GroupCoordinator> {
        let mut output = Output::<GroupCoordinator>::default();
        if bytes > 0 {
            output.commands.records.push(Record {
                key: Bytes::from(vec![0; bytes]),
                value: None,
            });
        }
        Event::Changed(output)
    }

    fn deferred(token: u64) -> Event<GroupCoordinator> {
        Event::Deferred {
            token: Token(token),
            act: Box::new(|_, _, _, _| {}),
        }
    }

    fn turns(mut queue: Queue<GroupCoordinator>) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        while let Some(turn) = queue.next_turn() {
            found.push(match turn {
                Turn::Batch(outputs, records) => (outputs.len(), records.len()),
                Turn::Alone(_) => (0, 0),
            });
        }
        assert!(queue.is_empty() && !queue.must_wait_behind());
        found
    }

    #[test]
    fn batches_are_filled_up_to_their_size_and_one_that_is_larger_goes_alone() {
        let mut queue = Queue::default();
        for bytes in [100, 0, 100, BATCH_BYTES, 2 * BATCH_BYTES, 0] {
            queue.push(changed(bytes));
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(turns(queue), [(3, 2), (1, 1), (2, 1)]);
    }

    #[test]
    fn what_is_still_to_act_divides_and_is_waited_behind() {
        let mut queue = Queue::default();
        queue.push(changed(1));
        assert!(!queue.must_wait_behind());
        queue.push(deferred(1));
        queue.push(changed(1));
        queue.push(changed(1));
        assert!(queue.must_wait_behind());
        assert_eq!(turns(queue), [(1, 1), (0, 0), (2, 2)]);
    }
}
