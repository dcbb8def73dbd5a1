//! Looking at groups: ListGroups, DescribeGroups, and the numbers for metrics.

use ringlog_net::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use ringlog_net::messages::list_groups::ListedGroup;
use ringlog_net::{Bytes, ErrorCode, Str};

use super::GroupCoordinator;
use super::classic::{ClassicGroup, State};
use super::consumer::ConsumerGroupState;
use super::group::GroupKind;
use super::reply::GroupReply;
use crate::{Caller, Commands};

/// From this version on a group that is not there is an error; before, it was Dead.
const FIRST_WITH_GROUP_ID_NOT_FOUND: i16 = 6;

/// Which groups are wanted; an empty list wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Kafka's names of states, in any case.
    pub states: Vec<Str>,
    /// Kafka's names of types, in any case.
    pub types: Vec<Str>,
}

impl ListFilter {
    fn wants(wanted: &[Str], name: &str) -> bool {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
    }
}

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Groups of any kind and state.
    pub groups: usize,
    /// Classic groups without members.
    pub empty: usize,
    /// Classic groups whose members join.
    pub preparing_rebalance: usize,
    /// Classic groups whose leader assigns.
    pub completing_rebalance: usize,
    /// Classic groups that are at work.
    pub stable: usize,
    /// Consumer groups (KIP-848) without members.
    pub consumer_empty: usize,
    /// Consumer groups for which a new assignment is due.
    pub consumer_assigning: usize,
    /// Consumer groups whose members are on their way to their assignment.
    pub consumer_reconciling: usize,
    /// Consumer groups whose members own what they should.
    pub consumer_stable: usize,
    /// Members of all groups.
    pub members: usize,
    /// The memory of members, in bytes.
    pub member_bytes: usize,
    /// Offsets that are committed.
    pub offsets: usize,
    /// Offsets that wait for the end of a transaction.
    pub pending_offsets: usize,
    /// Timers that run.
    pub timers: usize,
    /// Records that were found in the log and are of a type not known here.
    pub skipped_records: u64,
}

impl GroupCoordinator {
    /// The groups that a filter wants, by id.
    pub fn list_groups(&self, filters: &ListFilter) -> Vec<ListedGroup> {
        self.groups
            .iter()
            .filter(|(_, group)| {
                ListFilter::wants(&filters.states, &group.state_name())
                    && ListFilter::wants(&filters.types, &group.type_name())
            })
            .map(|(id, group)| ListedGroup {
                group_id: id.clone(),
                protocol_type: group.protocol_type(),
                group_state: group.state_name(),
                group_type: group.type_name(),
            })
            .collect()
    }

    /// Handles one group of a DescribeGroups, versions 0 to 6. Authorized operations are left to the caller. Answered at once.
    pub fn describe_group(
        &mut self,
        caller: &Caller,
        group_id: Str,
        out: &mut Commands<GroupReply>,
    ) {
        let group = self.groups.get(&group_id);
        let described = match group.map(|group| &group.kind) {
            Some(GroupKind::Classic(group)) => describe(group, group_id),
            other if caller.version >= FIRST_WITH_GROUP_ID_NOT_FOUND => DescribedGroup {
                error_code: ErrorCode::GROUP_ID_NOT_FOUND,
                error_message: Some(Str::from(match other {
                    None => format!("Group {group_id} not found."),
                    Some(_) => format!("Group {group_id} is not a classic group."),
                })),
                ..dead(group_id)
            },
            _ => dead(group_id),
        };
        out.reply(caller.token, described);
    }

    /// How much there is of what. Looks at every group.
    pub fn counts(&self) -> GroupCounts {
        let mut counts = GroupCounts {
            groups: self.groups.len(),
            member_bytes: self.member_bytes,
            offsets: self.offsets_count,
            pending_offsets: self.pending.len(),
            timers: self.timers.len(),
            skipped_records: self.skipped_records,
            ..GroupCounts::default()
        };
        for group in self.groups.values() {
            match &group.kind {
                GroupKind::Classic(group) => {
                    counts.members += group.members().len();
                    *match group.state() {
                        State::Empty => &mut counts.empty,
                        State::PreparingRebalance => &mut counts.preparing_rebalance,
                        State::CompletingRebalance => &mut counts.completing_rebalance,
                        State::Stable => &mut counts.stable,
                    } += 1;
                }
                GroupKind::Consumer(held) => {
                    counts.members += held.group.member_count();
                    *match held.group.state() {
                        ConsumerGroupState::Empty => &mut counts.consumer_empty,
                        ConsumerGroupState::Assigning => &mut counts.consumer_assigning,
                        ConsumerGroupState::Reconciling => &mut counts.consumer_reconciling,
                        ConsumerGroupState::Stable => &mut counts.consumer_stable,
                    } += 1;
                }
            }
        }
        counts
    }

    /// How many offsets are committed.
    pub fn committed_offsets_count(&self) -> usize {
        self.offsets_count
    }

    /// All that is committed: group, topic, partition, offset.
    pub fn committed_offsets(&self) -> impl Iterator<Item = (&Str, &Str, i32, i64)> {
        self.groups.iter().flat_map(|(id, group)| {
            group
                .offsets
                .iter()
                .map(move |((topic, partition), committed)| {
                    (id, topic, *partition, committed.offset)
                })
        })
    }
}

fn describe(group: &ClassicGroup, group_id: Str) -> DescribedGroup {
    // Metadata is that of a protocol, which is settled in a stable group alone.
    let protocol = group
        .protocol_name()
        .filter(|_| group.state() == State::Stable);
    DescribedGroup {
        group_id,
        group_state: Str::from_static(group.state().name()),
        protocol_type: group.protocol_type().cloned().unwrap_or_default(),
        protocol_data: protocol.cloned().unwrap_or_default(),
        members: group
            .members()
            .iter()
            .map(|member| DescribedGroupMember {
                member_id: member.id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: Str::from(&*member.client_id),
                client_host: Str::from(&*member.client_host),
                member_metadata: protocol
                    .and_then(|protocol| member.metadata(protocol))
                    .cloned()
                    .unwrap_or_else(Bytes::new),
                member_assignment: member.assignment.clone(),
            })
            .collect(),
        ..DescribedGroup::default()
    }
}

fn dead(group_id: Str) -> DescribedGroup {
    DescribedGroup {
        group_id,
        group_state: Str::from_static("Dead"),
        ..DescribedGroup::default()
    }
}
