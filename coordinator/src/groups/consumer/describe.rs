//! ConsumerGroupDescribe: what a group and its members look like from outside.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::Uuid;
use ringlog_net::messages::consumer_group_describe::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};

use super::config::ConsumerGroupConfig;
use super::group::ConsumerGroup;
use super::member::Member;
use super::topics::TopicView;

/// A member that speaks the classic protocol.
const CLASSIC_MEMBER: i8 = 0;
/// A member that speaks the consumer protocol.
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    /// The group as ConsumerGroupDescribe shows it; topics that are gone are left out.
    pub fn describe(&self, config: &ConsumerGroupConfig, topics: &dyn TopicView) -> DescribedGroup {
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state().name().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: self.assignor(config).name().into(),
            members: self
                .members
                .values()
                .map(|member| self.describe_member(member, topics))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, member: &Member, topics: &dyn TopicView) -> DescribedMember {
        let metadata = &member.metadata;
        // Until it has said to have given something up it owns it.
        let mut owned: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
        for (topic, partitions) in member
            .current
            .assigned
            .iter()
            .chain(&member.current.revoking)
        {
            owned.entry(*topic).or_default().extend(partitions.keys());
        }
        DescribedMember {
            member_id: member.id.clone(),
            instance_id: metadata.instance_id.clone(),
            rack_id: metadata.rack_id.clone(),
            member_epoch: member.current.epoch,
            client_id: metadata.client_id.clone(),
            client_host: metadata.client_host.clone(),
            subscribed_topic_names: metadata.topic_names.iter().cloned().collect(),
            subscribed_topic_regex: metadata.topic_regex.clone(),
            assignment: named(&owned, topics),
            target_assignment: self
                .target
                .get(&member.id)
                .map(|target| named(target, topics))
                .unwrap_or_default(),
            member_type: if member.is_classic() {
                CLASSIC_MEMBER
            } else {
                CONSUMER_MEMBER
            },
        }
    }
}

fn named(partitions: &BTreeMap<Uuid, BTreeSet<i32>>, topics: &dyn TopicView) -> Assignment {
    Assignment {
        topic_partitions: partitions
            .iter()
            .filter_map(|(topic_id, partitions)| {
                Some(TopicPartitions {
                    topic_id: *topic_id,
                    topic_name: topics.topic_name(topic_id)?,
                    partitions: partitions.iter().copied().collect(),
                })
            })
            .collect(),
    }
}
