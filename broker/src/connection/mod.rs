//! One client's connection, on the shard that serves it: frames in, requests in order, responses out in the same order.
//!
//! Three loops in one task share a [`Pipe`]: [`reader`] cuts frames and stops when enough is in work, [`dispatch`] starts requests one after the
//! other, the next one as soon as the order of the last is fixed, and [`writer`] sends responses, gathered. A client that does not
//! read stops its own requests from being read: every queue between the loops has a limit, in requests and in bytes. When the socket fails all three end.

pub mod budget;
mod dispatch;
mod listen;
mod reader;
mod registry;
pub mod signal;
mod to_its_end;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use compio::net::TcpStream;
use futures_util::future::LocalBoxFuture;
use nix::sys::socket::Shutdown;
use ringlog_net::Str;

use crate::authorizer::Principal;
use crate::shard::Shard;
use crate::shard::message::Accepted;
use budget::{Account, Permit};
pub use listen::accept_loop;
use registry::Registered;
pub use registry::{Connections, sweep};
use signal::{Changed, Signal};

/// What handlers may know of the connection a request came through.
pub struct ConnectionContext {
    /// Its number, unique in the process.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The client's address as Kafka writes it.
    pub host: Str,
    /// Our address as the client sees it.
    pub local: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who the client is.
    pub principal: RefCell<Principal>,
    /// Raised when the client has closed its side, or the broker stops: do not wait any longer.
    pub closed: Signal,
    /// What it holds of the shard's memory for responses.
    pub responses: Rc<Account>,
    /// A request waits for something that may never come, and all behind it do too.
    pub parked: Cell<bool>,
}

/// Says for as long as it lives that a request waits for something that may never come.
pub struct Parked<'a>(&'a Cell<bool>);

impl ConnectionContext {
    /// The request that is being answered waits from now on.
    pub fn park(&self) -> Parked<'_> {
        self.parked.set(true);
        Parked(&self.parked)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Closing {
    /// The client broke the protocol; the text says how.
    #[error("{0}")]
    Protocol(String),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A request without acknowledgement failed, and closing is the only way to say so.
    #[error("a produce request with acks=0 was refused: {0}")]
    Unacknowledged(String),
}

/// A frame that arrived and is not yet started.
struct Frame {
    content: Bytes,
    permit: Permit,
}

/// A response to come: `None` when the request gets none.
type ResponseFuture = LocalBoxFuture<'static, Result<Option<Vec<Bytes>>, Closing>>;

/// A request in work, or its finished response.
enum Answer {
    Ready(Vec<Bytes>),
    Coming(ResponseFuture),
}

struct Slot {
    answer: Answer,
    /// Held until the response is sent.
    _permits: Vec<Permit>,
}

/// What the loops of a connection share.
struct Pipe {
    shard: Rc<Shard>,
    context: Rc<ConnectionContext>,
    stream: TcpStream,
    inbox: RefCell<VecDeque<Frame>>,
    slots: RefCell<VecDeque<Slot>>,
    /// Slots not yet answered, including those the writer holds.
    unanswered: Cell<usize>,
    /// Bytes of finished responses not yet handed to the kernel.
    unsent_bytes: Cell<usize>,
    read_ended: Cell<bool>,
    dispatch_ended: Cell<bool>,
    last_activity: Cell<Instant>,
    /// What it holds of the shard's memory for requests.
    requests: Rc<Account>,
    /// The large frame that has begun and waits for its client to send the rest.
    partial: Cell<Option<Partial>>,
    /// The writer waits for the client to take what it was sent.
    sending: Cell<bool>,
    /// What the last sweep that saw no hoarding saw.
    seen: Cell<Seen>,
    /// Nothing more is to be read.
    shut: Cell<bool>,
    changed: Changed,
}

/// How a frame that has not arrived whole comes on.
#[derive(Clone, Copy)]
struct Partial {
    since: Instant,
    /// Bytes that have come since then.
    arrived: usize,
}

/// How far a connection had come, and when that was first seen.
#[derive(Clone, Copy)]
struct Seen {
    progress: u64,
    since: Instant,
}

impl Pipe {
    fn in_work(&self) -> usize {
        self.inbox.borrow().len() + self.unanswered.get()
    }

    fn touch(&self) {
        self.last_activity.set(Instant::now());
    }

    /// Ends the socket, which ends the loops that wait for it.
    fn shut(&self, how: Shutdown) {
        self.shut.set(true);
        // An error means that the other side was faster.
        let _ = nix::sys::socket::shutdown(self.stream.as_raw_fd(), how);
    }
}

/// Serves a client until the connection ends.
pub async fn serve(shard: Rc<Shard>, accepted: Accepted) {
    let peer = accepted.peer;
    let registered = match open(&shard, accepted) {
        Ok(pipe) => Registered::new(pipe),
        Err(error) => {
            shard.metrics.assigned.subtract_shared(1);
            tracing::debug!(%peer, %error, "a connection failed before its first request");
            return;
        }
    };
    let pipe = &registered.pipe;
    let (read, dispatched, written) = (reader::run(pipe), dispatch::run(pipe), writer::run(pipe));
    match futures_util::try_join!(read, dispatched, written) {
        Ok(_) => {}
        Err(Closing::Socket(error)) => tracing::debug!(%peer, %error, "the connection broke"),
        Err(reason @ (Closing::Protocol(_) | Closing::Unacknowledged(_))) => {
            shard.metrics.connections_refused.add(1);
            if shard.connections.may_complain() {
                tracing::warn!(%peer, %reason, "closed a connection");
            }
        }
    }
}

fn open(shard: &Rc<Shard>, accepted: Accepted) -> std::io::Result<Rc<Pipe>> {
    let stream = accepted.stream;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    listen::set_buffer_sizes(&stream, &shard.config);
    let now = Instant::now();
    let context = ConnectionContext {
        id: accepted.id,
        peer: accepted.peer,
        host: Str::from(format!("/{}", accepted.peer.ip()).as_str()),
        local,
        listener: accepted.listener,
        principal: RefCell::new(Principal::anonymous()),
        closed: Signal::default(),
        responses: shard.response_budget.account(),
        parked: Cell::new(false),
    };
    Ok(Rc::new(Pipe {
        shard: shard.clone(),
        context: Rc::new(context),
        stream: TcpStream::from_std(stream)?,
        inbox: RefCell::new(VecDeque::new()),
        slots: RefCell::new(VecDeque::new()),
        unanswered: Cell::new(0),
        unsent_bytes: Cell::new(0),
        read_ended: Cell::new(false),
        dispatch_ended: Cell::new(false),
        last_activity: Cell::new(now),
        requests: shard.request_budget.account(),
        partial: Cell::new(None),
        sending: Cell::new(false),
        seen: Cell::new(Seen {
            progress: 0,
            since: now,
        }),
        shut: Cell::new(false),
        changed: Changed::default(),
    }))
}
