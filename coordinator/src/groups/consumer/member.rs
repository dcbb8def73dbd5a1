//! A member of a consumer group: what it says of itself, and what it owns.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringlog_net::{Bytes, Str};

use super::assignment::Owned;

/// The epoch with which a member joins.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch with which a member leaves.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch with which a static member leaves for a while.
pub const LEAVE_STATIC_EPOCH: i32 = -2;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's id.
    pub id: Str,
    /// What it says of itself.
    pub metadata: Arc<Metadata>,
    /// What it owns.
    pub current: Current,
}

/// What a member says of itself: record type 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The static member's name.
    pub instance_id: Option<Str>,
    /// Where the consumer is.
    pub rack_id: Option<Str>,
    /// What the client calls itself.
    pub client_id: Str,
    /// Where it is connected from.
    pub client_host: Str,
    /// The topics it names.
    pub topic_names: BTreeSet<Str>,
    /// And those that match this; never empty.
    pub topic_regex: Option<Str>,
    /// How long it may take to give up partitions, in ms; −1: not said.
    pub rebalance_timeout_ms: i32,
    /// The assignor it prefers.
    pub server_assignor: Option<Str>,
    /// Of a member that speaks the classic protocol.
    pub classic: Option<Classic>,
}

/// What a member that speaks the classic protocol said in its JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classic {
    /// In ms.
    pub session_timeout_ms: i32,
    /// Names and metadata, the preferred first.
    pub protocols: Vec<(Str, Bytes)>,
}

/// What a member owns: record type 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The member's epoch.
    pub epoch: i32,
    /// The one before: an answer may have been lost.
    pub previous_epoch: i32,
    /// How far it has come.
    pub state: MemberState,
    /// What is its own.
    pub assigned: Owned,
    /// What it was told to give up and has not yet said to have given up.
    pub revoking: Owned,
}

/// How far a member has come on its way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It has everything it is to have in its epoch.
    Stable,
    /// It has to give up partitions first.
    UnrevokedPartitions,
    /// Others have not yet given up what it is to get.
    UnreleasedPartitions,
    /// A state of a newer version.
    Unknown,
}

impl MemberState {
    /// The state of a record's number.
    pub fn of(code: i8) -> MemberState {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }

    /// The number in records.
    pub fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Str::default(),
            client_host: Str::default(),
            topic_names: BTreeSet::new(),
            topic_regex: None,
            rebalance_timeout_ms: -1,
            server_assignor: None,
            classic: None,
        }
    }
}

impl Metadata {
    /// The memory it takes, roughly: a topic's name is kept once more to be counted.
    pub fn bytes(&self) -> usize {
        const EACH_NAME: usize = 96;
        let ids = [
            &self.instance_id,
            &self.rack_id,
            &self.topic_regex,
            &self.server_assignor,
        ];
        let ids: usize = ids.into_iter().flatten().map(|id| id.len()).sum();
        let names: usize = self
            .topic_names
            .iter()
            .map(|name| EACH_NAME + name.len())
            .sum();
        let classic = self.classic.as_ref().map_or(0, |classic| {
            let protocols = classic.protocols.iter();
            protocols
                .map(|(name, metadata)| EACH_NAME + name.len() + metadata.len())
                .sum()
        });
        size_of::<Member>()
            + size_of::<Self>()
            + self.client_id.len()
            + self.client_host.len()
            + ids
            + names
            + classic
    }
}

impl Default for Current {
    fn default() -> Self {
        Self {
            epoch: JOIN_EPOCH,
            previous_epoch: LEAVE_EPOCH,
            state: MemberState::Stable,
            assigned: Owned::new(),
            revoking: Owned::new(),
        }
    }
}

impl Member {
    /// A member that nothing is known of yet.
    pub fn new(id: Str) -> Member {
        Member {
            id,
            metadata: Arc::default(),
            current: Current::default(),
        }
    }

    /// Whether the member owns what it is to own as of an assignment.
    pub fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.current.state == MemberState::Stable && self.current.epoch == assignment_epoch
    }

    /// Whether it has yet to say that it gave up partitions.
    pub fn must_revoke(&self) -> bool {
        self.current.state == MemberState::UnrevokedPartitions
    }

    /// How long it may take to give up partitions, in ms.
    pub fn rebalance_timeout(&self) -> u64 {
        u64::try_from(self.metadata.rebalance_timeout_ms).unwrap_or(0)
    }

    /// Whether it speaks the classic protocol.
    pub fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }
}
