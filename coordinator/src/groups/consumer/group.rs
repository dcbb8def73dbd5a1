//! A consumer group: its members, what each should own and does own. Changed by [`Change`] alone; what has to be decided is decided beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ringlog_net::{Str, Uuid};

use super::assignment::{Owned, Partitions};
use super::assignor::Assignor;
use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::expression::{Expression, Resolved};
use super::member::{Current, Member, Metadata};
use super::timers::{Timer, Timers};
use super::topics::{TopicView, metadata_hash};
use crate::command::Now;
use crate::record::Record;

/// What a partition takes in a target, in bytes, roughly.
const PARTITION_BYTES: usize = 8;
/// What an owned partition takes, with the note of who owns it, in bytes, roughly.
const OWNED_BYTES: usize = 80;

/// A consumer group.
#[derive(Clone, Debug)]
pub struct ConsumerGroup {
    pub(super) id: Str,
    /// Grows when the members or their topics change, so that a new target is due.
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    /// The epoch that the target was made for.
    pub(super) target_epoch: i32,
    /// When the target was made, in ms since the epoch.
    pub(super) target_timestamp_ms: i64,
    pub(super) members: BTreeMap<Str, Member>,
    pub(super) target: BTreeMap<Str, Partitions>,
    pub(super) expressions: BTreeMap<Str, Resolved>,
    pub(super) has_partition_metadata: bool,
    /// Derived: the member of each static member's name.
    pub(super) static_members: HashMap<Str, Str>,
    /// Derived: who owns each partition, or has not yet said to have given it up.
    pub(super) owners: HashMap<(Uuid, i32), Str>,
    /// Derived: how many members name each topic.
    pub(super) named_topics: BTreeMap<Str, usize>,
    /// Derived: how many members subscribe to each expression.
    pub(super) expression_members: BTreeMap<Str, usize>,
    /// Derived: how many members speak the classic protocol.
    pub(super) classic_count: usize,
    /// Derived: how many of these know each of the protocols that they offer.
    pub(super) classic_protocols: BTreeMap<Str, usize>,
    /// Derived: the memory of members, in bytes.
    bytes: usize,
    /// Derived, as far as they were needed.
    pub(super) compiled: HashMap<Str, Expression>,
    pub(super) timers: Timers,
    /// The metadata that [`Self::on_metadata`] was last told of. A request may come with older ones, which do not show what has changed since.
    pub(super) noted_version: u64,
    /// Subscribed topics may have changed since the hash was computed. Not stored: so it is looked at after loading.
    pub(super) metadata_stale: bool,
    /// Expressions may match other topics than they did.
    pub(super) expressions_stale: bool,
    /// When the expressions were last resolved, in ms of the monotonic clock.
    pub(super) resolved_at_ms: Option<u64>,
}

/// The state of a group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerGroupState {
    /// Without members.
    Empty,
    /// A new target is due.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Everybody owns what it should.
    Stable,
}

impl ConsumerGroupState {
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ConsumerGroupState::Empty => "Empty",
            ConsumerGroupState::Assigning => "Assigning",
            ConsumerGroupState::Reconciling => "Reconciling",
            ConsumerGroupState::Stable => "Stable",
        }
    }
}

impl ConsumerGroup {
    /// The type of such groups, as ListGroups names it.
    pub const TYPE: &str = "consumer";
    /// The protocol type of such groups.
    pub const PROTOCOL_TYPE: &str = "consumer";

    /// A group without members.
    pub fn new(id: Str) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: 0,
            metadata_hash: 0,
            target_epoch: 0,
            target_timestamp_ms: 0,
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            expressions: BTreeMap::new(),
            has_partition_metadata: false,
            static_members: HashMap::new(),
            owners: HashMap::new(),
            named_topics: BTreeMap::new(),
            expression_members: BTreeMap::new(),
            classic_count: 0,
            classic_protocols: BTreeMap::new(),
            bytes: 0,
            compiled: HashMap::new(),
            timers: Timers::default(),
            noted_version: 0,
            metadata_stale: true,
            expressions_stale: true,
            resolved_at_ms: None,
        }
    }

    /// The group's id.
    pub fn id(&self) -> &Str {
        &self.id
    }

    /// The group's epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The epoch that the target was made for.
    pub fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    /// The members, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The member of an id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// How many of the members speak the classic protocol.
    pub fn classic_count(&self) -> usize {
        self.classic_count
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The memory that members and what they own take, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The topics that anybody subscribes to.
    pub fn subscribed_topics(&self) -> BTreeSet<Str> {
        let matched = self.expressions.values().flat_map(|found| &found.topics);
        self.named_topics.keys().chain(matched).cloned().collect()
    }

    /// The state of the group as a whole.
    pub fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerGroupState::Assigning
        } else if self
            .members
            .values()
            .all(|member| member.is_reconciled_to(self.target_epoch))
        {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    /// Whether anybody subscribes to a topic: its committed offsets are in use.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.named_topics.contains_key(topic)
            || self
                .expressions
                .values()
                .any(|resolved| resolved.topics.contains(topic))
    }

    /// Whether a member with this metadata subscribes to a topic. An expression that is not resolved yet matches nothing.
    pub(super) fn subscribes(&self, metadata: &Metadata, topic: &str) -> bool {
        metadata.topic_names.contains(topic)
            || metadata
                .topic_regex
                .as_ref()
                .and_then(|regex| self.expressions.get(regex))
                .is_some_and(|resolved| resolved.topics.contains(topic))
    }

    /// Who owns a partition, or has not yet said to have given it up.
    pub(super) fn owner(&self, topic: &Uuid, partition: i32) -> Option<&Str> {
        self.owners.get(&(*topic, partition))
    }

    /// Whether topics may differ from those that the epoch is for.
    pub(in crate::groups) fn must_look_at_topics(&self) -> bool {
        self.metadata_stale
    }

    /// The hash of the subscribed topics as they are now.
    pub(super) fn current_hash(&self, topics: &dyn TopicView) -> i64 {
        if self.expressions.is_empty() {
            return metadata_hash(self.named_topics.keys().map(Str::as_str), topics);
        }
        let named = self.named_topics.keys();
        let matched = self.expressions.values().flat_map(|found| &found.topics);
        let all: BTreeSet<&str> = named.chain(matched).map(Str::as_str).collect();
        metadata_hash(all.into_iter(), topics)
    }

    /// The assignor that most of those members prefer who prefer any, else the default.
    pub fn assignor(&self, config: &ConsumerGroupConfig) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for member in self.members.values() {
            let named = member.metadata.server_assignor.as_deref();
            if let Some(assignor) = named.and_then(Assignor::named) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        // Of equals the first one.
        votes
            .into_iter()
            .rev()
            .max_by_key(|(_, votes)| *votes)
            .map_or(config.default_assignor(), |(assignor, _)| assignor)
    }

    /// Makes a change, and the record of it.
    pub(in crate::groups) fn change(&mut self, change: Change, records: &mut Vec<Record>) {
        records.push(change.record(&self.id));
        self.replay(change);
    }

    /// Makes a change that has been written down. The end of the group is its holder's to carry out.
    pub fn replay(&mut self, change: Change) {
        match change {
            Change::Epoch(Some((epoch, metadata_hash))) => {
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
            }
            Change::Epoch(None) => {}
            Change::PartitionMetadata(there) => self.has_partition_metadata = there,
            Change::Member(id, Some(metadata)) => self.put_member(id, metadata),
            Change::Member(id, None) => self.remove_member(&id),
            Change::TargetEpoch(value) => {
                (self.target_epoch, self.target_timestamp_ms) = value.unwrap_or_default();
            }
            Change::Target(id, partitions) => {
                let count =
                    |partitions: &Partitions| partitions.values().map(BTreeSet::len).sum::<usize>();
                self.bytes += PARTITION_BYTES * partitions.as_ref().map_or(0, count);
                let old = match partitions {
                    Some(partitions) => self.target.insert(id, partitions),
                    None => self.target.remove(&id),
                };
                self.bytes -= PARTITION_BYTES * old.as_ref().map_or(0, count);
            }
            Change::Current(id, Some(current)) => self.put_current(id, current),
            Change::Current(id, None) => {
                if self.members.contains_key(&id) {
                    self.put_current(id, Current::default());
                }
            }
            Change::Expression(expression, resolved) => {
                self.bytes += resolved.as_ref().map_or(0, Resolved::bytes);
                let old = match resolved {
                    Some(resolved) => self.expressions.insert(expression, resolved),
                    None => {
                        self.compiled.remove(&expression);
                        self.expressions.remove(&expression)
                    }
                };
                self.bytes -= old.as_ref().map_or(0, Resolved::bytes);
            }
        }
    }

    fn put_member(&mut self, id: Str, metadata: Arc<Metadata>) {
        let old = self.member_mut(id.clone()).metadata.clone();
        self.forget_metadata(&id, &old);
        self.bytes += metadata.bytes();
        for topic in &metadata.topic_names {
            *self.named_topics.entry(topic.clone()).or_default() += 1;
        }
        if let Some(regex) = &metadata.topic_regex {
            *self.expression_members.entry(regex.clone()).or_default() += 1;
        }
        if let Some(instance_id) = &metadata.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        if let Some(classic) = &metadata.classic {
            self.classic_count += 1;
            for (protocol, _) in &classic.protocols {
                *self.classic_protocols.entry(protocol.clone()).or_default() += 1;
            }
        }
        self.member_mut(id).metadata = metadata;
    }

    fn member_mut(&mut self, id: Str) -> &mut Member {
        self.members.entry(id).or_insert_with_key(|id| {
            let member = Member::new(id.clone());
            self.bytes += member.metadata.bytes();
            member
        })
    }

    fn forget_metadata(&mut self, id: &Str, old: &Metadata) {
        self.bytes -= old.bytes();
        for topic in &old.topic_names {
            uncount(&mut self.named_topics, topic);
        }
        if let Some(regex) = &old.topic_regex {
            uncount(&mut self.expression_members, regex);
        }
        if let Some(classic) = &old.classic {
            self.classic_count -= 1;
            for (protocol, _) in &classic.protocols {
                uncount(&mut self.classic_protocols, protocol);
            }
        }
        if let Some(instance_id) = &old.instance_id
            && self.static_members.get(instance_id) == Some(id)
        {
            self.static_members.remove(instance_id);
        }
    }

    fn remove_member(&mut self, id: &Str) {
        if let Some(member) = self.members.remove(id) {
            self.forget_metadata(id, &member.metadata);
            self.release(id, &member.current.assigned);
            self.release(id, &member.current.revoking);
        }
        self.timers.cancel_all(id);
    }

    fn put_current(&mut self, id: Str, current: Current) {
        let member = self.member_mut(id.clone());
        let old = std::mem::replace(&mut member.current, current.clone());
        self.release(&id, &old.assigned);
        self.release(&id, &old.revoking);
        for owned in [&current.assigned, &current.revoking] {
            for (topic, partitions) in owned {
                for partition in partitions.keys() {
                    self.owners.insert((*topic, *partition), id.clone());
                    self.bytes += OWNED_BYTES;
                }
            }
        }
    }

    fn release(&mut self, id: &Str, owned: &Owned) {
        for (topic, partitions) in owned {
            for partition in partitions.keys() {
                self.bytes -= OWNED_BYTES;
                let key = (*topic, *partition);
                if self.owners.get(&key) == Some(id) {
                    self.owners.remove(&key);
                }
            }
        }
    }

    /// The records that end an empty group, or one that becomes a classic one.
    pub fn tombstones(&self) -> Vec<Record> {
        let ids = || self.members.keys().cloned();
        // A target may outlive its member by a record or two when a log is cut short.
        let targets: BTreeSet<Str> = ids().chain(self.target.keys().cloned()).collect();
        let mut changes: Vec<Change> = ids().map(|id| Change::Current(id, None)).collect();
        changes.extend(targets.into_iter().map(|id| Change::Target(id, None)));
        changes.push(Change::TargetEpoch(None));
        changes.extend(ids().map(|id| Change::Member(id, None)));
        let expressions = self.expressions.keys().cloned();
        changes.extend(expressions.map(|regex| Change::Expression(regex, None)));
        if self.has_partition_metadata {
            changes.push(Change::PartitionMetadata(false));
        }
        changes.push(Change::Epoch(None));
        changes
            .iter()
            .map(|change| change.record(&self.id))
            .collect()
    }

    /// Starts the timers of all members: the group has been loaded, and nobody can have heartbeat meanwhile.
    pub fn loaded(&mut self, now: Now, config: &ConsumerGroupConfig) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            self.start_timers(&id, now, config);
        }
    }

    pub(super) fn start_timers(&mut self, id: &Str, now: Now, config: &ConsumerGroupConfig) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let session_ms = match &member.metadata.classic {
            Some(classic) => u64::try_from(classic.session_timeout_ms).unwrap_or(0),
            None => config.session_timeout(),
        };
        let rebalance_ms = member.rebalance_timeout();
        let unrevoked = !member.is_classic() && member.must_revoke();
        let at = |after_ms: u64| now.monotonic_ms.saturating_add(after_ms);
        self.timers.set(id, Timer::Session, at(session_ms));
        if unrevoked {
            self.timers.set(id, Timer::Rebalance, at(rebalance_ms));
        }
    }

    /// When the next timer runs out, in ms of the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// Topics were created, deleted or got partitions, up to this version of the metadata: those named here, each with whether it is there now. Whether the group must be
    /// rebalanced is found out at its next heartbeat.
    pub fn on_metadata<'a>(
        &mut self,
        changed: impl IntoIterator<Item = &'a (Str, bool)>,
        version: u64,
    ) {
        self.noted_version = self.noted_version.max(version);
        for (name, there) in changed {
            if !self.metadata_stale && self.is_subscribed(name) {
                self.metadata_stale = true;
            }
            if self.expressions_stale {
                continue;
            }
            self.expressions_stale = self.expressions.iter().any(|(regex, resolved)| {
                // One that is not compiled has not been looked at since the group was loaded.
                let matches = self
                    .compiled
                    .get(regex)
                    .is_none_or(|regex| regex.matches(name));
                (*there && matches) != resolved.topics.contains(name)
            });
        }
    }

    /// As [`Self::on_metadata`], when so much has changed that nobody knows what.
    pub fn on_unknown_metadata(&mut self, version: u64) {
        self.noted_version = self.noted_version.max(version);
        self.metadata_stale = true;
        self.expressions_stale = true;
    }
}

fn uncount(counts: &mut BTreeMap<Str, usize>, key: &Str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
