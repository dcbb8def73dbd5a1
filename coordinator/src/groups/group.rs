//! A group: its members, in one of the protocols there are, and its offsets, which are the same in all of them.

use ringlog_net::Str;

use super::classic::ClassicGroup;
use super::offsets::OffsetTable;
use super::table::Table;

/// How the members of a group agree on who reads what. Another protocol is another variant here.
#[derive(Debug)]
pub(crate) enum GroupKind {
    /// JoinGroup and SyncGroup; also a group without members, which only has offsets.
    Classic(ClassicGroup),
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
        Box::new(Self {
            kind: GroupKind::Classic(group),
            offsets: OffsetTable::default(),
            unstable: Table::default(),
        })
    }

    /// The classic group, if it is one.
    pub(crate) fn as_classic(&self) -> Option<&ClassicGroup> {
        match &self.kind {
            GroupKind::Classic(group) => Some(group),
        }
    }

    /// The classic group, if it is one.
    pub(crate) fn as_classic_mut(&mut self) -> Option<&mut ClassicGroup> {
        match &mut self.kind {
            GroupKind::Classic(group) => Some(group),
        }
    }

    /// Whether there are no members, and none expected.
    pub(crate) fn is_deserted(&self) -> bool {
        match &self.kind {
            GroupKind::Classic(group) => group.is_deserted(),
        }
    }

    /// What the group counts as in [`ListGroups`](ringlog_net::messages::list_groups).
    pub(crate) fn type_name(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(_) => Str::from_static("classic"),
        }
    }

    /// Kafka's name of the state.
    pub(crate) fn state_name(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(group) => Str::from_static(group.state().name()),
        }
    }

    /// Kafka's name of the protocol type; empty when there is none.
    pub(crate) fn protocol_type(&self) -> Str {
        match &self.kind {
            GroupKind::Classic(group) => group.protocol_type().cloned().unwrap_or_default(),
        }
    }
}
