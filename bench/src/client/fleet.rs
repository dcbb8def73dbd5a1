//! Many non-blocking connections on one thread: requests go out by connection, answers come back as they arrive.
//!
//! What an answer means, and what is sent next, is the owner's. A connection that breaks ends the fleet, because nothing is retried here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ringlog_net::api::ApiKey;
use ringlog_net::codec::Message;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::connection::Connection;
use super::poller::Poller;
use super::wire;

/// An answer, without its size.
#[derive(Debug)]
pub struct Arrival {
    /// The connection it came on.
    pub connection: usize,
    /// The version it was asked in.
    pub version: i16,
    /// Header and body.
    pub frame: Bytes,
}

/// Connections and the poller that watches them.
pub struct Fleet {
    connections: Vec<Connection>,
    awaits_room: Vec<bool>,
    poller: Poller,
    ready: Vec<usize>,
}

impl Fleet {
    /// Opens `count` connections to one broker.
    pub fn open(address: SocketAddr, count: usize) -> io::Result<Fleet> {
        // A thousand members are as many sockets; the usual soft limit is 1024 files.
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // Where that is refused, opening says what is missing.
        let _ = setrlimit(Resource::Nofile, raised);
        let poller = Poller::new()?;
        let mut connections = Vec::with_capacity(count);
        for token in 0..count {
            let connection = Connection::open(address)?;
            poller.add(connection.socket(), token as u64, false)?;
            connections.push(connection);
        }
        Ok(Fleet {
            awaits_room: vec![false; count],
            connections,
            poller,
            ready: Vec::new(),
        })
    }

    /// Requests of a connection that are not yet answered.
    pub fn in_flight(&self, connection: usize) -> usize {
        self.connections[connection].in_flight()
    }

    /// Encodes a request and sends as much of it as the socket takes now.
    pub fn send<M: Message>(
        &mut self,
        connection: usize,
        key: ApiKey,
        version: i16,
        body: &M,
    ) -> io::Result<()> {
        let link = &mut self.connections[connection];
        let frame = wire::encode(key, version, link.next_correlation_id(), body)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        link.send(frame, version, true);
        self.flush(connection)
    }

    fn flush(&mut self, connection: usize) -> io::Result<()> {
        let link = &mut self.connections[connection];
        link.flush()?;
        let wants = link.wants_write();
        if wants != self.awaits_room[connection] {
            self.poller
                .modify(link.socket(), connection as u64, wants)?;
            self.awaits_room[connection] = wants;
        }
        Ok(())
    }

    /// Waits until something is there, at most `timeout`, and adds the answers that came to `arrived`.
    pub fn poll(&mut self, timeout: Duration, arrived: &mut Vec<Arrival>) -> io::Result<()> {
        self.ready.clear();
        let (ready, connections) = (&mut self.ready, self.connections.len());
        self.poller.wait(timeout, |readiness| {
            let token = readiness.token as usize;
            if token < connections {
                ready.push(token);
            }
        })?;
        for at in 0..self.ready.len() {
            let token = self.ready[at];
            self.connections[token].receive(|pending, frame| {
                arrived.push(Arrival {
                    connection: token,
                    version: pending.version,
                    // A copy, so that the input buffer stays whole and is used again.
                    frame: Bytes::copy_from_slice(&frame),
                });
            })?;
            if self.awaits_room[token] {
                self.flush(token)?;
            }
        }
        Ok(())
    }
}
