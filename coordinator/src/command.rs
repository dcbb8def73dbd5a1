//! What goes into a coordinator with an event, and what comes out.

use ringlog_net::{Str, Uuid};

use crate::record::Record;

/// The time of an event, as whoever drives the coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back: for timeouts.
    pub monotonic_ms: u64,
    /// Milliseconds since the epoch: for what is written down.
    pub wall_ms: i64,
}

/// Names a request that waits for its answer; given out by whoever drives the coordinator, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Who asks, and when.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Names the request in the answer.
    pub token: Token,
    /// The time.
    pub now: Now,
    /// The version of the request.
    pub version: i16,
    /// What the client calls itself; empty when it does not.
    pub client_id: Str,
    /// The client's address as Kafka writes it, with a slash before it.
    pub client_host: Str,
    /// A random id that nobody ever had, for a member id that may have to be made up.
    pub fresh_id: Uuid,
}

/// What an event brings about.
#[derive(Clone, Debug)]
pub struct Commands<Reply> {
    /// To be appended to the coordinator's own partition, as one batch.
    pub records: Vec<Record>,
    /// The records belong to a transaction of this producer: its id and epoch.
    pub producer: Option<(i64, i16)>,
    /// Answers that may go once the records, and those of all events before, are durable.
    pub replies: Vec<(Token, Reply)>,
}

impl<Reply> Default for Commands<Reply> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            producer: None,
            replies: Vec::new(),
        }
    }
}

impl<Reply> Commands<Reply> {
    /// Answers a request.
    pub fn reply(&mut self, token: Token, reply: impl Into<Reply>) {
        // As a rule it is the only one, and they are large.
        if self.replies.is_empty() {
            self.replies.reserve_exact(1);
        }
        self.replies.push((token, reply.into()));
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.replies.is_empty()
    }
}
