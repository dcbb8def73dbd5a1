//! A group: its members, in one of the protocols there are, and its offsets, which are the same in all of them.

use ringlog_net::Str;

use super::classic::ClassicGroup;
use super::consumer::ConsumerGroup;
use super::consumers::HeldConsumerGroup;
use super::offsets::OffsetTable;
use super::table::Table;

/// How the members of a group agree on who reads what. Another protocol is another variant here.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most groups are classic, and a group is boxed as a whole"
)]
pub(crate) enum GroupKind {
    /// JoinGroup and SyncGroup; also a group without members, which only has offsets.
    Classic(ClassicGroup),
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer(HeldConsumerGroup),
}

/// A group of any kind.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) kind: GroupKind,
    /// What is committed.
    pub(crate) offsets: OffsetTable,
    /// Partitions with commits that wait for the end of a transaction, and the producers of these.
    pub(crate) unstable: Table<Vec<i64>>,
}

impl Group {
    pub(crate) fn classic(group: ClassicGroup) -> Box<Self> {
        Self::of_kind(GroupKind::Classic(group))
    }

    /// A group without offsets.
    pub(crate) fn of_kind(kind: GroupKind) -> Box<Self> {
        Box::new(Self {
            kind,
            offsets: OffsetTable::default(),
            unstable: Table::default(),
        })
    }

    /// The classic group, if it is one.
    pub(crate) fn as_classic(&self) -> Option<&ClassicGroup> {
        match &self.kind {
            GroupKind::Classic(group) => Some(group),
            GroupKind::Consumer(_) => None,
        }
    }

    /// The classic group, if it is one.
    pub(crate) fn as_classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match &mut self.kind {
            GroupKind::Classic(group) => Some(group),
            GroupKind::Consumer(_) => None,
        }
    }

    /// The consumer group, if it is one.
    pub(crate) fn as_consumer(&self) -> Option<&ConsumerGroup> {
        match &self.kind {
            GroupKind::Classic(_) => None,
            GroupKind::Consumer(held) => Some(&held.group),
        }
    }

    /// The consumer group, if it is one.
    pub(crate) fn as_consumer_mut(&mut self) -> Option<&mut HeldConsumerGroup> {
        match &mut self.kind {
            GroupKind::Classic(_) => None,
            GroupKind::Consumer(held) => Some(held),
        }
    }

    /// Of a consumer group, whether its timer runs.
    #[cfg(test)]
    pub(crate) fn consumer_timer(&self) -> Option<(bool, &ConsumerGroup)> {
        match &self.kind {
            GroupKind::Classic(_) => None,
            GroupKind::Consumer(held) => Some((held.timer.is_some(), &held.group)),
        }
    }

    /// The memory of members.
    pub(crate) fn member_bytes(&self) -> usize {
        match &self.kind {
            GroupKind::Classic(group) => group.bytes(),
            GroupKind::Consumer(held) => held.group.bytes(),
        }
    }

    /// The memory of one member; none if it is not there.
    pub(crate) fn bytes_of_member(&self, id: &str) -> usize {
        let bytes = match &self.kind {
            GroupKind::Classic(group) => group.members().get(id).map(|member| member.bytes()),
            GroupKind::Consumer(held) => {
                held.group.member(id).map(|member| member.metadata.bytes())
            }
        };
        bytes.unwrap_or(0)
    }

    /// Whether there are no members, and none expected.
    pub(crate) fn is_deserted(&self) -> bool {
        match &self.kind {
            GroupKind::Classic(group) => group.is_deserted(),
            GroupKind::Consumer(held) => held.group.is_empty(),
        }
    }

    /// What the group counts as in [`ListGroups`](ringlog_net::messages::list_groups).
    pub(crate) fn type_name(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(_) => Str::from_static("classic"),
            GroupKind::Consumer(_) => Str::from_static(ConsumerGroup::TYPE),
        }
    }

    /// Kafka's name of the state.
    pub(crate) fn state_name(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(group) => Str::from_static(group.state().name()),
            GroupKind::Consumer(held) => Str::from_static(held.group.state().name()),
        }
    }

    /// Kafka's name of the protocol type; empty when there is none.
    pub(crate) fn protocol_type(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(group) => group.protocol_type().cloned().unwrap_or_default(),
            GroupKind::Consumer(_) => Str::from_static(ConsumerGroup::PROTOCOL_TYPE),
        }
    }
}
