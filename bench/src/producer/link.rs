//! One client's connections, one to each broker that leads any of its partitions.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use super::lane::Lane;
use crate::client::admin::TopicLayout;
use crate::client::connection::Connection;
use crate::client::poller::Poller;

/// One client's connection to one broker.
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// Whether the poller tells when the socket takes more.
    pub watching_write: bool,
    /// Lanes that have something to send, in order.
    pub ready: VecDeque<u32>,
    /// Closed loop: whose turn it is.
    pub turn: usize,
    /// The lanes it serves.
    pub lanes: Vec<u32>,
    /// Whether it is gone.
    pub dead: bool,
}

impl Link {
    fn new(connection: Connection) -> Link {
        Link {
            connection,
            watching_write: false,
            ready: VecDeque::new(),
            turn: 0,
            lanes: Vec::new(),
            dead: false,
        }
    }

    /// Whether everything it has is sent and answered, or never will be.
    pub fn settled(&self) -> bool {
        let idle = self.connection.in_flight() == 0 && !self.connection.wants_write();
        self.dead || (idle && self.ready.is_empty())
    }
}

/// Opens the connections of `client` and gives it a lane for every partition.
pub fn open_client(
    client: usize,
    layouts: &[TopicLayout],
    token_base: u64,
    poller: &Poller,
    links: &mut Vec<Link>,
    lanes: &mut Vec<Lane>,
) -> io::Result<()> {
    let mut by_leader: HashMap<SocketAddr, u32> = HashMap::new();
    for (topic, layout) in layouts.iter().enumerate() {
        for leader in &layout.partitions {
            let link = match by_leader.get(&leader.address) {
                Some(&link) => link,
                None => {
                    let link = links.len();
                    let connection = Connection::open(leader.address)?;
                    poller.add(connection.socket(), token_base + link as u64, false)?;
                    links.push(Link::new(connection));
                    by_leader.insert(leader.address, link as u32);
                    link as u32
                }
            };
            links[link as usize].lanes.push(lanes.len() as u32);
            lanes.push(Lane::new(
                topic as u32,
                leader.partition,
                link,
                client as u32,
            ));
        }
    }
    Ok(())
}
