//! A classic group as it is written down, and as it comes back: Empty, or Stable with the protocol that was chosen.

use ringlog_net::coordinators::{GroupMetadataValue, MemberMetadata};
use ringlog_net::{Bytes, Str};

use super::member::protocol_name;
use super::{ClassicGroup, Member, Protocol, State};
use crate::groups::context::{Context, detached};
use crate::groups::offsets::NO_TIMESTAMP;
use crate::groups::stored::{self, ReplayError};

impl ClassicGroup {
    /// Appends the group's record. Whether that was possible: a record may be too large.
    pub(crate) fn store(&self, context: &mut Context<'_>) -> bool {
        match stored::group(&self.id, &self.to_value()) {
            Ok(record) => context.append(record),
            Err(_) => false,
        }
    }

    /// Appends the record that says that there is such a group, before anybody has joined.
    pub(crate) fn store_new(&self, context: &mut Context<'_>) -> bool {
        let value = GroupMetadataValue {
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(NO_TIMESTAMP),
            ..GroupMetadataValue::default()
        };
        match stored::group(&self.id, &value) {
            Ok(record) => context.append(record),
            Err(_) => false,
        }
    }

    pub(super) fn to_value(&self) -> GroupMetadataValue {
        let protocol = self.protocol_name.as_ref();
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: protocol.cloned(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(NO_TIMESTAMP),
            members: self
                .members
                .iter()
                .map(|member| MemberMetadata {
                    member_id: member.id.clone(),
                    group_instance_id: member.instance_id.clone(),
                    client_id: Str::from(&*member.client_id),
                    client_host: Str::from(&*member.client_host),
                    rebalance_timeout: member.rebalance_timeout_ms,
                    session_timeout: member.session_timeout_ms,
                    subscription: protocol
                        .and_then(|protocol| member.metadata(protocol))
                        .cloned()
                        .unwrap_or_else(Bytes::new),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }

    /// The group that was written down.
    ///
    /// # Errors
    /// [`ReplayError::Contradiction`] when no coordinator can have written it.
    pub(crate) fn from_value(id: &Str, value: &GroupMetadataValue) -> Result<Self, ReplayError> {
        let timestamp = value.current_state_timestamp;
        let mut group = Self::new(id, (timestamp != NO_TIMESTAMP).then_some(timestamp));
        group.generation = value.generation;
        group.protocol_type =
            (!value.protocol_type.is_empty()).then(|| protocol_name(&value.protocol_type));
        group.protocol_name = value.protocol.as_ref().map(protocol_name);
        group.leader = value.leader.as_ref().map(Str::detached);
        for stored in &value.members {
            let Some(protocol) = &group.protocol_name else {
                let problem = "a group with members and without a protocol";
                return Err(ReplayError::Contradiction(problem));
            };
            let member = Box::new(member(stored, protocol.clone()));
            if group.members.contains(&member.id) {
                return Err(ReplayError::Contradiction("a member twice in one group"));
            }
            if let Some(instance_id) = &member.instance_id
                && group.static_member(instance_id).is_some()
            {
                return Err(ReplayError::Contradiction(
                    "two members with one instance id",
                ));
            }
            group.add(member);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        // Of a group that was a consumer group and is to be rebalanced none is written.
        let leader = value.leader.as_ref();
        group.leader = leader
            .filter(|leader| group.members.contains(leader))
            .or_else(|| leader.and(group.members.iter().next().map(|member| &member.id)))
            .map(Str::detached);
        Ok(group)
    }
}

fn member(stored: &MemberMetadata, protocol: Str) -> Member {
    Member {
        id: stored.member_id.detached(),
        instance_id: stored.group_instance_id.as_ref().map(Str::detached),
        client_id: stored.client_id.as_str().into(),
        client_host: stored.client_host.as_str().into(),
        // The first versions had one timeout for both.
        rebalance_timeout_ms: if stored.rebalance_timeout == -1 {
            stored.session_timeout
        } else {
            stored.rebalance_timeout
        },
        session_timeout_ms: stored.session_timeout,
        protocols: Box::new([Protocol {
            name: protocol,
            metadata: detached(&stored.subscription),
        }]),
        assignment: detached(&stored.assignment),
        join: None,
        sync: None,
        session: None,
        is_new: false,
        owes_sync: false,
    }
}
