//! What shards say to each other.
//!
//! Produce has a message of its own, because its order matters and because it is the hottest; everything else travels as a closure
//! that runs over there: a job, which is a task, or a question, which is none. All of it is `Send`; payloads are reference-counted bytes.

use std::any::Any;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::append::{AppendOrder, AppendOutcome};
use super::exchange::ReplyTo;
use crate::controller::{Delta, Image};
use crate::lag::Wanted;

/// Something for a shard to do.
pub enum Request {
    /// Append batches to partitions that the shard owns.
    Append(AppendOrder),
    /// Run a closure.
    Job(Job),
    /// Run a closure here and now; whoever it hands the duty to answers with a job's answer.
    Question(Question),
    /// Make the logs follow a new image; replies with a job answer of `()`.
    Apply {
        /// The image.
        image: Arc<Image>,
        /// What changed since the one before; none: compare with everything there is.
        delta: Option<Arc<Delta>>,
    },
    /// Serve a client.
    Connection(Accepted),
    /// Copy gauges into the shard's counters, then tell the asker.
    Snapshot(tokio::sync::oneshot::Sender<()>),
    /// Leave the high watermarks of these partitions where metrics are read, as far as they are here, then tell the asker.
    HighWatermarks(Wanted, tokio::sync::oneshot::Sender<()>),
    /// Open the metadata log, publish the first image, report when all shards have applied it. For the controller's shard.
    OpenMetadata,
    /// Accept connections.
    Listen {
        /// The bound socket.
        listener: TcpListener,
        /// The listener's name.
        name: Arc<str>,
    },
    /// Stop, first half: no new connections, finish what runs. The engine goes on, for shards that still have connections.
    Stop,
    /// Stop, second half, once no shard has a connection left: close the engine cleanly and end.
    Close,
}

/// A client's connection on its way to the shard that serves it.
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// Its number, unique in the process.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
}

/// What a job's future gives.
pub type JobFuture = Pin<Box<dyn Future<Output = Box<dyn Any + Send>>>>;

/// A closure for another shard.
pub struct Job {
    /// Starts the work over there.
    pub run: Box<dyn FnOnce(Rc<Shard>) -> JobFuture + Send>,
    /// Whether it is dropped when the caller loses interest.
    pub cancellable: bool,
}

/// A closure for another shard that starts something there and waits for nothing, so that no task has to be made for it.
pub type Question = Box<dyn FnOnce(&Rc<Shard>, ReplyTo<Request, Reply>) + Send>;

/// The answers.
pub enum Reply {
    /// To [`Request::Append`]: in the order of its items.
    Appended(Vec<AppendOutcome>),
    /// To [`Request::Job`] and [`Request::Question`]: what the closure's future gave.
    Job(Box<dyn Any + Send>),
}
