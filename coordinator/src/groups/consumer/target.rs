//! Making the target of a group: what each member should own as of the group's epoch.

use std::collections::BTreeMap;

use ringlog_net::{Str, Uuid};

use super::assignment::Partitions;
use super::assignor::{GroupSpec, MemberSpec, TopicSpec};
use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::group::ConsumerGroup;
use super::topics::TopicView;
use crate::command::Now;
use crate::record::Record;

impl ConsumerGroup {
    /// Whether a new target may be made yet.
    pub(super) fn is_interval_over(&self, now: Now, config: &ConsumerGroupConfig) -> bool {
        let made = self.target_timestamp_ms;
        let due = made.saturating_add(i64::from(config.assignment_interval_ms));
        // A target from the future was made before the clock was set back: no reason to wait for it.
        made == 0 || now.wall_ms >= due || now.wall_ms < made
    }

    /// Makes a new target when one is due.
    pub(super) fn update_target(
        &mut self,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        if self.target_epoch >= self.epoch || !self.is_interval_over(now, config) {
            return;
        }
        let assigned = self.assign(config, topics);
        for (id, partitions) in assigned {
            if self.target.get(&id) != Some(&partitions) {
                self.change(Change::Target(id, Some(partitions)), records);
            }
        }
        let made = Change::TargetEpoch(Some((self.epoch, now.wall_ms)));
        self.change(made, records);
    }

    fn assign(
        &self,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
    ) -> Vec<(Str, Partitions)> {
        // Members whose subscriptions read the same are looked up once.
        let mut numbers = BTreeMap::new();
        let mut distinct = Vec::new();
        let mut of_member = Vec::with_capacity(self.members.len());
        for member in self.members.values() {
            let subscription = (&member.metadata.topic_names, &member.metadata.topic_regex);
            let number = *numbers.entry(subscription).or_insert_with(|| {
                distinct.push(subscription);
                distinct.len() - 1
            });
            of_member.push(number);
        }
        let mut known: BTreeMap<Uuid, i32> = BTreeMap::new();
        let subscribed: Vec<Vec<Uuid>> = distinct
            .into_iter()
            .map(|(names, regex)| {
                let resolved = regex.as_ref().and_then(|regex| self.expressions.get(regex));
                let matched = resolved.into_iter().flat_map(|resolved| &resolved.topics);
                let mut ids: Vec<Uuid> = names
                    .iter()
                    .chain(matched)
                    .filter_map(|name| topics.topic_by_name(name))
                    .map(|(id, partitions)| {
                        known.insert(id, partitions);
                        id
                    })
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            })
            .collect();
        let specs: Vec<TopicSpec> = known
            .into_iter()
            .map(|(id, partitions)| TopicSpec { id, partitions })
            .collect();
        // And those that come to the same are one subscription to the assignor.
        let mut subscriptions: Vec<Vec<usize>> = Vec::new();
        let mut by_topics = BTreeMap::new();
        let mut numbers = Vec::with_capacity(subscribed.len());
        for ids in subscribed {
            let indices: Vec<usize> = ids
                .iter()
                .filter_map(|id| specs.binary_search_by(|topic| topic.id.cmp(id)).ok())
                .collect();
            let number = *by_topics.entry(ids).or_insert_with(|| {
                subscriptions.push(indices);
                subscriptions.len() - 1
            });
            numbers.push(number);
        }
        let nothing = Partitions::new();
        let members = self
            .members
            .values()
            .zip(of_member)
            .map(|(member, number)| MemberSpec {
                member_id: &member.id,
                instance_id: member.metadata.instance_id.as_deref(),
                subscription: numbers[number],
                current: self.target.get(&member.id).unwrap_or(&nothing),
            })
            .collect();
        let spec = GroupSpec {
            topics: specs,
            subscriptions,
            members,
        };
        let assignment = self.assignor(config).assign(&spec);
        self.members.keys().cloned().zip(assignment).collect()
    }
}
