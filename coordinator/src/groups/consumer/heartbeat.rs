//! ConsumerGroupHeartbeat (KIP-848): members join, say what they own, are told what to own, and leave.

use std::sync::Arc;

use ringlog_net::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_net::{ErrorCode, Str};

use super::assignment::{Partitions, on_the_wire};
use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::expression::Expression;
use super::group::ConsumerGroup;
use super::identity::Beating;
use super::member::{
    Current, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member, MemberState, Metadata,
};
use super::reconcile::Step;
use super::refusal::Refusal;
use super::request;
use super::timers::Timer;
use super::topics::TopicView;
use crate::command::{Caller, Commands, Now};
use crate::groups::context::bytes_of;
use crate::record::Record;

impl ConsumerGroup {
    /// Answers a heartbeat. The group is as it was when it is refused.
    pub fn heartbeat<Reply: From<ConsumerGroupHeartbeatResponse>>(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        out: &mut Commands<Reply>,
    ) {
        let mut records = Vec::new();
        let answer = request::check(request, caller.version, config)
            .and_then(|()| self.serve(caller, request, config, topics, &mut records));
        match answer {
            Ok(response) => {
                out.records.append(&mut records);
                out.reply(caller.token, response);
            }
            Err(refusal) => out.reply(caller.token, refused(refusal)),
        }
    }

    fn serve(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        if matches!(request.member_epoch, LEAVE_EPOCH | LEAVE_STATIC_EPOCH) {
            return self.leave(request, topics, records);
        }
        let beating = self.identify(caller, request, config)?;
        let expression = self.check_expression(&beating, request)?;
        // Only then the group may have to become again what it was: a copy takes as long as the group is large.
        let id = beating.replaces.as_ref().unwrap_or(&beating.id);
        let names = request.subscribed_topic_names.as_deref();
        let regex = request.subscribed_topic_regex.as_deref();
        let much = self.may_write_much(id, names, regex, 0, caller.now, config);
        let before = much.then(|| self.clone());
        let response = self.beat(
            caller, request, &beating, expression, config, topics, records,
        );
        let bytes = bytes_of(records);
        debug_assert!(before.is_some() || bytes <= config.batch_bytes_max);
        if bytes > config.batch_bytes_max
            && let Some(before) = before
        {
            *self = before;
            return Err(Refusal::new(
                ErrorCode::UNKNOWN_SERVER_ERROR,
                format!(
                    "What changes in the group takes {bytes} bytes to write down at once; \
                     {} are allowed.",
                    config.batch_bytes_max
                ),
            ));
        }
        Ok(response)
    }

    /// Whether a heartbeat may make more to write down than surely fits: a target for the whole group, the topics that an expression matches, or very much of
    /// its own member, who says so many bytes besides.
    pub(super) fn may_write_much(
        &self,
        id: &Str,
        names: Option<&[Str]>,
        regex: Option<&str>,
        bytes: usize,
        now: Now,
        config: &ConsumerGroupConfig,
    ) -> bool {
        let nobody = Member::new(id.clone());
        let member = self.members.get(id).unwrap_or(&nobody);
        let known = member.metadata.topic_regex.as_deref().unwrap_or_default();
        let same_regex = regex.is_none_or(|regex| regex == known);
        if !same_regex || self.is_resolution_due(now, config) {
            return true;
        }
        let same_names = names.is_none_or(|names| {
            let known = &member.metadata.topic_names;
            names.len() == known.len() && names.iter().all(|name| known.contains(name))
        });
        let changes = !same_names || self.metadata_stale || self.target_epoch < self.epoch;
        if changes && self.is_interval_over(now, config) {
            return true;
        }
        // What the member is to own, owns and says of itself, each written at most twice when it takes another's place.
        let target = self.target.get(id).into_iter().flatten();
        let owned = member
            .current
            .assigned
            .iter()
            .chain(&member.current.revoking);
        let partitions = target.map(|(_, partitions)| partitions.len());
        let partitions = partitions.chain(owned.map(|(_, partitions)| partitions.len()));
        let partitions: usize = partitions.map(|count| 32 + 8 * count).sum();
        let names = names.into_iter().flatten().map(|name| name.len() + 2);
        let bytes = bytes + 2 * (partitions + member.metadata.bytes()) + names.sum::<usize>();
        bytes > config.batch_bytes_max / 2
    }

    /// A heartbeat of a member that stays; nothing is refused any more.
    #[expect(clippy::too_many_arguments, reason = "what one heartbeat is about")]
    fn beat(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        beating: &Beating,
        expression: Option<(Str, Expression)>,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> ConsumerGroupHeartbeatResponse {
        let now = caller.now;
        if let Some(old) = &beating.replaces {
            self.replace_member(old, &beating.id, records);
        }
        let known = self.members.get(&beating.id).cloned();
        let is_new = known.is_none();
        let before = known.unwrap_or_else(|| Member::new(beating.id.clone()));
        if before.is_classic() {
            // It says what it owns with its heartbeats from now on.
            self.timers.cancel_all(&beating.id);
        }
        let metadata = updated(&before.metadata, request, caller);
        let names_changed = metadata.topic_names != before.metadata.topic_names;
        let regex_changed = metadata.topic_regex != before.metadata.topic_regex;
        if is_new || metadata != *before.metadata {
            let change = Change::Member(beating.id.clone(), Some(Arc::new(metadata)));
            self.change(change, records);
        }
        if let Some((regex, compiled)) = expression {
            self.compiled.insert(regex, compiled);
        }
        let matches_changed = self.resolve(now, config, topics, records);
        self.refresh(
            names_changed || regex_changed || matches_changed,
            topics,
            records,
        );
        self.update_target(now, config, topics, records);
        let claimed = request.topic_partitions.as_deref();
        self.reconcile(
            &beating.id,
            names_changed || regex_changed,
            claimed,
            now,
            topics,
            records,
        );
        if before.is_classic() {
            self.start_timers(&beating.id, now, config);
        }
        let deadline = now.monotonic_ms.saturating_add(config.session_timeout());
        self.timers.set(&beating.id, Timer::Session, deadline);
        let current = self
            .members
            .get(&beating.id)
            .map(|member| member.current.clone())
            .unwrap_or_default();
        let says_everything = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some();
        let tell = request.member_epoch == JOIN_EPOCH
            || says_everything
            || current.assigned != before.current.assigned;
        ConsumerGroupHeartbeatResponse {
            member_id: Some(beating.id.clone()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            assignment: tell.then(|| Assignment {
                topic_partitions: on_the_wire(&current.assigned),
            }),
            ..ConsumerGroupHeartbeatResponse::default()
        }
    }

    /// Puts a new member in the place of a static one that has left for a while: it gets all that was the other's.
    pub(super) fn replace_member(&mut self, old: &Str, new: &Str, records: &mut Vec<Record>) {
        let Some(member) = self.members.get(old).cloned() else {
            return;
        };
        let target = self.target.get(old).cloned().unwrap_or_default();
        self.remove(old, records);
        let current = Current {
            epoch: JOIN_EPOCH,
            previous_epoch: JOIN_EPOCH,
            ..member.current
        };
        self.change(Change::Member(new.clone(), Some(member.metadata)), records);
        self.change(Change::Target(new.clone(), Some(target)), records);
        self.change(Change::Current(new.clone(), Some(current)), records);
    }

    /// Moves the group to its next epoch if subscriptions have changed, or their topics have.
    pub(super) fn refresh(
        &mut self,
        changed: bool,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        // Epoch 0 is that of a group which nobody ever joined.
        let mut bump = changed || self.epoch == 0;
        // A request that saw less than was noted cannot tell what has changed: another will.
        let sees_all = topics.version() >= self.noted_version;
        let is_due = bump || (self.metadata_stale && sees_all);
        if !is_due {
            return;
        }
        let hash = self.current_hash(topics);
        bump |= hash != self.metadata_hash;
        if bump {
            let next = Change::Epoch(Some((self.epoch.saturating_add(1), hash)));
            self.change(next, records);
        }
        self.metadata_stale = !sees_all;
        if self.has_partition_metadata {
            self.change(Change::PartitionMetadata(false), records);
        }
    }

    /// Takes a member one step towards its target.
    pub(super) fn reconcile(
        &mut self,
        id: &Str,
        subscription_changed: bool,
        claimed: Option<&[TopicPartitions]>,
        now: Now,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        if !subscription_changed && member.is_reconciled_to(self.target_epoch) {
            return;
        }
        let nothing = Partitions::new();
        let next = Step {
            current: &member.current,
            target_epoch: self.target_epoch,
            target: self.target.get(id).unwrap_or(&nothing),
            subscription_changed,
            subscribes: &|topic| {
                topics
                    .topic_name(topic)
                    .is_some_and(|name| self.subscribes(&member.metadata, &name))
            },
            taken: &|topic, partition| self.owner(topic, partition).is_some(),
            claimed,
        }
        .next();
        if next == member.current {
            return;
        }
        let rebalance_ms = member.rebalance_timeout();
        let is_classic = member.is_classic();
        let unrevoked = next.state == MemberState::UnrevokedPartitions;
        self.change(Change::Current(id.clone(), Some(next)), records);
        if unrevoked && !is_classic {
            let deadline = now.monotonic_ms.saturating_add(rebalance_ms);
            self.timers.set(id, Timer::Rebalance, deadline);
        } else {
            self.timers.cancel(id, Timer::Rebalance);
        }
    }
}

/// What a member says of itself after a request.
fn updated(
    before: &Metadata,
    request: &ConsumerGroupHeartbeatRequest,
    caller: &Caller,
) -> Metadata {
    let or = |new: &Option<Str>, old: &Option<Str>| {
        new.as_ref().map(Str::detached).or_else(|| old.clone())
    };
    Metadata {
        instance_id: or(&request.instance_id, &before.instance_id),
        rack_id: or(&request.rack_id, &before.rack_id),
        client_id: caller.client_id.detached(),
        client_host: caller.client_host.detached(),
        topic_names: match &request.subscribed_topic_names {
            Some(names) => names.iter().map(Str::detached).collect(),
            None => before.topic_names.clone(),
        },
        topic_regex: or(&request.subscribed_topic_regex, &before.topic_regex)
            .filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            -1 => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        server_assignor: or(&request.server_assignor, &before.server_assignor),
        classic: None,
    }
}

/// The answer to a heartbeat that is refused.
pub fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: refusal.code,
        error_message: Some(refusal.message),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
