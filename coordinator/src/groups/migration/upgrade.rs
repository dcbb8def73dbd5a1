//! A classic group with members becomes a consumer group: its members are members of that, which speak the classic protocol.
//!
//! They own what they were assigned, and what they said to own when they joined last as far as nobody else was assigned it: who cooperates reads on while a
//! rebalance is under way, and need not have asked yet for what it was assigned in the last one. A consumer's joining moves the group to its next epoch, so
//! all of them are told to join again, and say then what they really own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::{ErrorCode, Str, Uuid};

use crate::groups::GroupCoordinator;
use crate::groups::classic::{self, ClassicGroup};
use crate::groups::consumer::assignment::{Owned, Partitions};
use crate::groups::consumer::embedded::{Subscription, read_assignment};
use crate::groups::consumer::member::{Classic, Current, JOIN_EPOCH, MemberState, Metadata};
use crate::groups::consumer::{Change, ConsumerGroup, Refusal, TopicView};
use crate::groups::group::GroupKind;
use crate::groups::reply::GroupReply;
use crate::groups::stored;
use crate::{Commands, Record};

impl GroupCoordinator {
    /// Whether a classic group with members may become a consumer group.
    pub(in crate::groups) fn check_upgrade(&self, group: &ClassicGroup) -> Result<(), Refusal> {
        let config = &self.config.consumer;
        let why = if !config.migration_policy.upgrades() {
            "the configuration does not allow it"
        } else if !group.is_of_consumers() {
            "its members are not consumers"
        } else if group.members().len() > config.members_max() {
            "it has more members than a consumer group may have"
        } else {
            return Ok(());
        };
        Err(refusal(group, why))
    }

    /// Has it said once of a group that the configuration keeps it from becoming a consumer group when a consumer wants to join.
    pub(in crate::groups) fn note_refused_upgrade(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        out: &mut Commands<GroupReply>,
    ) {
        if request.member_epoch != JOIN_EPOCH || self.config.consumer.migration_policy.upgrades() {
            return;
        }
        let group = self.groups.get_mut(&request.group_id);
        if let Some(GroupKind::Classic(group)) = group.map(|group| &mut group.kind)
            && group.state() != classic::State::Empty
            && !std::mem::replace(&mut group.told_no_upgrade, true)
        {
            out.notices.push(format!(
                "group {} stays classic although a consumer of the consumer protocol wants to join: group.consumer.migration.policy does not allow the upgrade",
                // A client has chosen it, and may not write lines of its own.
                group.id().escape_debug()
            ));
        }
    }

    /// The consumer group that a classic group with members becomes, and the records that say so.
    pub(in crate::groups) fn upgraded(
        &self,
        group: &ClassicGroup,
        topics: &dyn TopicView,
    ) -> Result<(ConsumerGroup, Vec<Record>), Refusal> {
        let members = read_members(group, topics)?;
        let mut records: Vec<Record> = stored::group_tombstone(group.id()).into_iter().collect();
        let mut made = ConsumerGroup::new(group.id().clone());
        made.fill(group.generation(), members, &mut records);
        Ok((made, records))
    }
}

/// The hash of topics that there are none of.
const NO_TOPICS_HASH: i64 = 0;

/// A member as it was in the classic group.
struct Converted {
    id: Str,
    metadata: Metadata,
    /// What it may own.
    owned: Partitions,
}

impl ConsumerGroup {
    /// Fills a new group with members, each of which owns what it should.
    fn fill(&mut self, generation: i32, members: Vec<Converted>, records: &mut Vec<Record>) {
        let mut owned = Vec::with_capacity(members.len());
        for member in members {
            let metadata = Arc::new(member.metadata);
            self.change(Change::Member(member.id.clone(), Some(metadata)), records);
            owned.push((member.id, member.owned));
        }
        // No hash of any topics: the joining that made the group moves it to its next epoch even if it is a static member's that reads what it read. The classic
        // group may have been rebalancing, or its assignment be older than what topics there are. (Kafka computes the hash, and means the epoch to move as well.)
        self.change(Change::Epoch(Some((generation, NO_TOPICS_HASH))), records);
        for (id, owned) in &owned {
            let target = Change::Target(id.clone(), Some(owned.clone()));
            self.change(target, records);
        }
        self.change(Change::TargetEpoch(Some((generation, 0))), records);
        for (id, owned) in owned {
            let current = Current {
                epoch: generation,
                previous_epoch: generation,
                state: MemberState::Stable,
                assigned: since(owned, generation),
                revoking: Owned::new(),
            };
            self.change(Change::Current(id, Some(current)), records);
        }
    }
}

fn since(partitions: Partitions, epoch: i32) -> Owned {
    let owned = partitions.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|number| (number, epoch));
        (topic, partitions.collect())
    });
    owned.collect()
}

fn read_members(group: &ClassicGroup, topics: &dyn TopicView) -> Result<Vec<Converted>, Refusal> {
    // In the first rebalance of a group none is chosen yet.
    let protocol = group
        .protocol_name()
        .cloned()
        .or_else(|| group.select_protocol());
    let mut owners: BTreeMap<(Uuid, i32), Str> = BTreeMap::new();
    let mut members = Vec::with_capacity(group.members().len());
    let mut claims = Vec::new();
    for member in group.members().iter() {
        let said = protocol.as_ref();
        let said = said.and_then(|protocol| member.metadata(protocol));
        let subscription = said
            .and_then(|metadata| Subscription::read(metadata).ok())
            .ok_or_else(|| refusal(group, "what a member says of itself cannot be read"))?;
        let (assigned, says_more) = read_assignment(&member.assignment, topics)
            .map_err(|_| refusal(group, "what a member was assigned cannot be read"))?;
        if says_more {
            return Err(refusal(
                group,
                "its assignor tells members more than their partitions",
            ));
        }
        for (topic, partitions) in &assigned {
            for number in partitions {
                owners.insert((*topic, *number), member.id.clone());
            }
        }
        claims.push(subscription.owned(topics));
        members.push(Converted {
            id: member.id.clone(),
            metadata: metadata_of(member, subscription),
            owned: assigned,
        });
    }
    // What two were assigned is the last one's; what two say to own and nobody was assigned is the first one's.
    for (member, claims) in members.iter_mut().zip(claims) {
        let claims = claims.into_iter().flat_map(|topic| {
            let partitions = topic.partitions.into_iter();
            partitions.map(move |number| (topic.topic_id, number))
        });
        let assigned = std::mem::take(&mut member.owned);
        let assigned = assigned.into_iter().flat_map(|(topic, partitions)| {
            partitions.into_iter().map(move |number| (topic, number))
        });
        for (topic, number) in assigned.chain(claims) {
            let owner = owners
                .entry((topic, number))
                .or_insert_with(|| member.id.clone());
            if *owner == member.id {
                let of_topic: &mut BTreeSet<i32> = member.owned.entry(topic).or_default();
                of_topic.insert(number);
            }
        }
    }
    Ok(members)
}

fn metadata_of(member: &classic::Member, subscription: Subscription) -> Metadata {
    let protocols = member.protocols.iter();
    Metadata {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack_id,
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        topic_names: subscription.topics,
        topic_regex: None,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: None,
        classic: Some(Classic {
            session_timeout_ms: member.session_timeout_ms,
            protocols: protocols
                .map(|protocol| (protocol.name.clone(), protocol.metadata.clone()))
                .collect(),
        }),
    }
}

fn refusal(group: &ClassicGroup, why: &str) -> Refusal {
    let id = group.id();
    let message =
        format!("Group {id} is a classic group and cannot become a consumer group: {why}.");
    Refusal::new(ErrorCode::GROUP_ID_NOT_FOUND, message)
}
