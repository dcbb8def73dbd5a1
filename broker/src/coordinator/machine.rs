//! What a host must know of the state machine that it hosts.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_coordinator::{Commands, Now};

use super::host::Host;
use crate::shard::Shard;

/// An entry of the log, as it is read back.
#[derive(Clone, Debug)]
pub enum Replayed {
    /// A record.
    Record {
        /// Id and epoch of the producer in whose transaction it was written.
        producer: Option<(i64, i16)>,
        /// Its key.
        key: Bytes,
        /// Its value, or a tombstone.
        value: Option<Bytes>,
    },
    /// The end of a producer's transaction.
    Marker {
        /// The producer.
        producer_id: i64,
        /// Whether it was committed.
        committed: bool,
    },
}

/// Why an entry was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreplayed {
    /// It is of a kind that is not known here: of a later version, or of another protocol.
    Foreign(String),
    /// It should be known and cannot be read: the state is not complete without it.
    Unreadable(String),
}

/// What an event brings about: see [`Commands`], and what else is to be done once its records are durable.
pub struct Output<M: Machine> {
    /// Records and answers.
    pub commands: Commands<M::Reply>,
    /// What else.
    pub effects: Vec<M::Effect>,
}

impl<M: Machine> Default for Output<M> {
    fn default() -> Self {
        Self {
            commands: Commands::default(),
            effects: Vec::new(),
        }
    }
}

/// The state of one partition of an internal topic.
pub trait Machine: Sized + 'static {
    /// Answers.
    type Reply: Send + 'static;
    /// What else an event brings about.
    type Effect: 'static;

    /// Takes in an entry of the log.
    ///
    /// # Errors
    /// What is wrong with it, and whether one can do without it.
    fn replay(&mut self, entry: Replayed) -> Result<(), Unreplayed>;

    /// The whole log was taken in.
    fn loaded(&mut self, now: Now, output: &mut Output<Self>);

    /// Time has come to the deadline.
    fn on_timeout(&mut self, now: Now, shard: &Shard, output: &mut Output<Self>);

    /// When [`Self::on_timeout`] is wanted next, in ms of the monotonic clock.
    fn next_deadline(&self) -> Option<u64>;

    /// The state is given up: whoever waits is answered.
    fn resign(&mut self, output: &mut Output<Self>);

    /// Does what an event brought about, now that its records are durable.
    fn perform(host: &Rc<Host<Self>>, effect: Self::Effect);

    /// An event has happened: a look at whether the machine wants anything else.
    fn after_event(_host: &Rc<Host<Self>>) {}
}
