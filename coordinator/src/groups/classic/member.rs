//! A member of a classic group, and the members of a group in the order of their ids.

use ringlog_net::messages::join_group::JoinGroupRequestProtocol;
use ringlog_net::{Bytes, Str};

use crate::groups::context::{Waiting, detached};
use crate::groups::timers::TimerHandle;

/// A way of assigning that a member knows, and what it says to the leader if that way is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Str,
    pub(crate) metadata: Bytes,
}

/// Copies the name of a protocol or of a type of them. Those of the common clients take no memory.
pub(crate) fn protocol_name(name: &Str) -> Str {
    const COMMON: [&str; 6] = [
        "consumer",
        "range",
        "cooperative-sticky",
        "roundrobin",
        "sticky",
        "connect",
    ];
    let known = COMMON.iter().find(|known| **known == name.as_str());
    known.map_or_else(|| name.detached(), |known| Str::from_static(known))
}

/// Copies what a request offers; of several with one name the first counts.
pub(crate) fn protocols(offered: &[JoinGroupRequestProtocol]) -> Box<[Protocol]> {
    let mut protocols: Vec<Protocol> = Vec::with_capacity(offered.len());
    for protocol in offered {
        if !protocols.iter().any(|known| known.name == protocol.name) {
            protocols.push(Protocol {
                name: protocol_name(&protocol.name),
                metadata: detached(&protocol.metadata),
            });
        }
    }
    protocols.into()
}

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// A static member's own name (KIP-345).
    pub(crate) instance_id: Option<Str>,
    pub(crate) client_id: Box<str>,
    pub(crate) client_host: Box<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In the order in which the member prefers them.
    pub(crate) protocols: Box<[Protocol]>,
    pub(crate) assignment: Bytes,
    /// Its JoinGroup that waits for the others.
    pub(crate) join: Option<Waiting>,
    /// Its SyncGroup that waits for the leader's.
    pub(crate) sync: Option<Waiting>,
    pub(crate) session: Option<TimerHandle>,
    /// It was not yet told its id, so that it cannot send heartbeats.
    pub(crate) is_new: bool,
    /// It was told the generation and has not asked for its assignment.
    pub(crate) owes_sync: bool,
}

impl Member {
    /// What it says to the leader under a protocol.
    pub(crate) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|known| known.name == *protocol)
            .map(|known| &known.metadata)
    }

    /// Whether it may be silent: it waits for us.
    pub(crate) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// The memory it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let protocols: usize = self
            .protocols
            .iter()
            .map(|protocol| size_of::<Protocol>() + protocol.name.len() + protocol.metadata.len())
            .sum();
        size_of::<Self>()
            + self.id.len()
            + self.instance_id.as_ref().map_or(0, |id| id.len())
            + self.client_id.len()
            + self.client_host.len()
            + protocols
            + self.assignment.len()
    }
}

/// Members by id. A vector, because most groups are small and many.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "a member is large: moving pointers keeps coming and going cheap"
)]
pub(crate) struct Members(Vec<Box<Member>>);

impl Members {
    fn position(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|member| member.id.as_str().cmp(id))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.position(id).is_ok()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Member> {
        self.position(id).ok().map(|position| &*self.0[position])
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.position(id)
            .ok()
            .map(|position| &mut *self.0[position])
    }

    /// Adds a member; one with the same id is replaced and returned.
    pub(crate) fn insert(&mut self, member: Box<Member>) -> Option<Box<Member>> {
        match self.position(&member.id) {
            Ok(position) => Some(std::mem::replace(&mut self.0[position], member)),
            Err(position) => {
                self.0.insert(position, member);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Box<Member>> {
        let position = self.position(id).ok()?;
        let member = self.0.remove(position);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(member)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().map(|member| &**member)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut().map(|member| &mut **member)
    }
}
