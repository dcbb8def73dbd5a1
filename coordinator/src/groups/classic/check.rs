//! What must hold of a classic group at any time, and what of it survives a coordinator; for tests.

use std::collections::BTreeMap;

use ringlog_net::{Bytes, Str};

use super::{ClassicGroup, Member, PENDING_MEMBER_BYTES, State};

/// A member as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DurableMember {
    id: Str,
    instance_id: Option<Str>,
    client_id: Box<str>,
    client_host: Box<str>,
    timeouts_ms: (i32, i32),
    metadata: Option<Bytes>,
    assignment: Bytes,
}

/// A group as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Durable {
    generation: i32,
    protocol_type: Option<Str>,
    protocol_name: Option<Str>,
    leader: Option<Str>,
    state_timestamp_ms: Option<i64>,
    members: Vec<DurableMember>,
}

impl Durable {
    /// Whether it never had members.
    pub(crate) fn is_trivial(&self) -> bool {
        self.generation == 0 && self.protocol_type.is_none() && self.members.is_empty()
    }
}

impl ClassicGroup {
    /// The group as it is stored, if it is in a state that is.
    pub(crate) fn durable(&self) -> Option<Durable> {
        if !matches!(self.state, State::Empty | State::Stable) {
            return None;
        }
        let protocol = self.protocol_name.clone().unwrap_or_default();
        Some(Durable {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone(),
            // Of a group that never had members it means nothing.
            state_timestamp_ms: self
                .state_timestamp_ms
                .filter(|_| self.protocol_type.is_some()),
            members: self
                .members
                .iter()
                .map(|member| DurableMember {
                    id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    timeouts_ms: (member.session_timeout_ms, member.rebalance_timeout_ms),
                    metadata: member.metadata(&protocol).cloned(),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        })
    }

    /// Panics when what is counted is not what is there. Returns how many timers the group has.
    pub(crate) fn check(&self) -> usize {
        let count =
            |is: fn(&Member) -> bool| self.members.iter().filter(|member| is(member)).count();
        assert_eq!(self.joined, count(|member| member.join.is_some()));
        assert_eq!(self.owing_sync, count(|member| member.owes_sync));
        let members: usize = self.members.iter().map(Member::bytes).sum();
        let pending: usize = self
            .pending
            .keys()
            .map(|id| PENDING_MEMBER_BYTES + id.len())
            .sum();
        assert_eq!(self.bytes, members + pending);
        let mut votes: BTreeMap<Str, usize> = BTreeMap::new();
        let mut instances = Vec::new();
        for member in self.members.iter() {
            for protocol in &member.protocols {
                *votes.entry(protocol.name.clone()).or_default() += 1;
            }
            if let Some(instance_id) = &member.instance_id {
                instances.push((instance_id.clone(), member.id.clone()));
            }
            assert!(
                member.session.is_some() || member.is_excused(),
                "whoever is not waiting for us is waited for"
            );
            assert!(member.join.is_none() || self.state == State::PreparingRebalance);
            assert!(member.sync.is_none() || self.state == State::CompletingRebalance);
            assert!(!self.pending.contains_key(&member.id));
        }
        instances.sort();
        assert_eq!(self.instances, instances);
        assert!(self.votes.iter().cloned().eq(votes));
        if !self.members.is_empty() {
            let is_shared = |(_, votes): &(Str, usize)| *votes == self.members.len();
            assert!(self.votes.iter().any(is_shared), "all share a protocol");
        }
        self.check_state()
    }

    fn check_state(&self) -> usize {
        match self.state {
            State::Empty => assert!(self.members.is_empty() && self.leader.is_none()),
            State::PreparingRebalance => assert!(self.join_timer.is_some()),
            State::CompletingRebalance => {
                assert!(self.sync_timer.is_some() || self.owing_sync == 0);
                assert!(!self.members.is_empty());
            }
            State::Stable => assert!(!self.members.is_empty()),
        }
        assert_eq!(
            self.join_timer.is_some(),
            self.state == State::PreparingRebalance
        );
        assert_eq!(self.sync_timer.is_some(), self.owing_sync > 0);
        let leader = self.leader.as_ref();
        assert!(leader.is_none_or(|leader| self.members.contains(leader)));
        let sessions = self.members.iter().map(|member| &member.session);
        let slots = sessions
            .chain(self.pending.values())
            .chain([&self.join_timer, &self.sync_timer]);
        slots.filter(|slot| slot.is_some()).count()
    }
}
