//! ConsumerGroupHeartbeat (KIP-848): members join, say what they own, are told what to own, and leave.

use std::sync::Arc;

use ringlog_net::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use ringlog_net::{ErrorCode, Str};

use super::assignment::{Owned, Partitions, claims_only, on_the_wire};
use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::expression::{EXPRESSIONS_MAX, Expression};
use super::group::ConsumerGroup;
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

/// Expressions are resolved at most so often because topics have changed, in ms; a constant of Kafka's.
const RESOLUTION_INTERVAL_MS: u64 = 10_000;

/// Who a heartbeat comes from.
struct Beating {
    id: Str,
    /// The static member that this one takes the place of.
    replaces: Option<Str>,
}

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
        let much = self.may_write_much(&beating, request, caller.now, config);
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
    /// its own member.
    fn may_write_much(
        &self,
        beating: &Beating,
        request: &ConsumerGroupHeartbeatRequest,
        now: Now,
        config: &ConsumerGroupConfig,
    ) -> bool {
        let id = beating.replaces.as_ref().unwrap_or(&beating.id);
        let nobody = Member::new(id.clone());
        let member = self.members.get(id).unwrap_or(&nobody);
        let names = request.subscribed_topic_names.as_deref();
        let regex = request.subscribed_topic_regex.as_deref();
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
        let bytes = 2 * (partitions + member.metadata.bytes()) + names.sum::<usize>();
        bytes > config.batch_bytes_max / 2
    }

    /// Finds out who asks, and refuses who is not what it says.
    fn identify(
        &self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        config: &ConsumerGroupConfig,
    ) -> Result<Beating, Refusal> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let id = if request.member_id.is_empty() {
            Str::from(caller.fresh_id.to_string())
        } else {
            request.member_id.detached()
        };
        let mut replaces = None;
        if let Some(instance_id) = &request.instance_id {
            let holder = self.static_member(instance_id);
            if joins {
                // Its own name does not keep a member out: the answer to its first join may have been lost.
                if let Some(holder) = holder.filter(|holder| holder.id != id || has_left(holder)) {
                    check_released(holder, &id, instance_id)?;
                    replaces = Some(holder.id.clone());
                }
            } else {
                check_instance(holder, &id, instance_id)?;
            }
        }
        match self.members.get(&id) {
            Some(member) if replaces.is_none() => {
                check_epoch(member, request)?;
                check_state(member, request)?;
            }
            None if !joins => return Err(self.unknown_member(&id)),
            None if replaces.is_none() => Refusal::unless(
                self.members.len() < config.members_max(),
                ErrorCode::GROUP_MAX_SIZE_REACHED,
                format!(
                    "The consumer group has reached its maximum capacity of {} members.",
                    config.members_max()
                ),
            )?,
            _ => {}
        }
        Ok(Beating { id, replaces })
    }

    pub(super) fn static_member(&self, instance_id: &Str) -> Option<&Member> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    pub(super) fn unknown_member(&self, id: &str) -> Refusal {
        let message = format!("Member {id} is not a member of group {}.", self.id);
        Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, message)
    }

    /// Compiles the expression of a request if it is new to the group.
    fn check_expression(
        &self,
        beating: &Beating,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<Option<(Str, Expression)>, Refusal> {
        let Some(regex) = request.subscribed_topic_regex.as_ref() else {
            return Ok(None);
        };
        if regex.is_empty() || self.expression_members.contains_key(regex) {
            return Ok(None);
        }
        let invalid = |reason: String| {
            let message =
                format!("SubscribedTopicRegex is not a valid regular expression: {reason}.");
            Refusal::new(ErrorCode::INVALID_REGULAR_EXPRESSION, message)
        };
        let own = self
            .members
            .get(beating.replaces.as_ref().unwrap_or(&beating.id));
        let replaced = own
            .and_then(|member| member.metadata.topic_regex.as_ref())
            .is_some_and(|regex| self.expression_members.get(regex) == Some(&1));
        if self.expression_members.len() - usize::from(replaced) >= EXPRESSIONS_MAX {
            let reason = format!("the group has {EXPRESSIONS_MAX} different ones already");
            return Err(invalid(reason));
        }
        let compiled = Expression::compile(regex).map_err(invalid)?;
        Ok(Some((regex.detached(), compiled)))
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
            heartbeat_interval_ms: config.heartbeat_interval(),
            assignment: tell.then(|| Assignment {
                topic_partitions: on_the_wire(&current.assigned),
            }),
            ..ConsumerGroupHeartbeatResponse::default()
        }
    }

    /// Puts a new member in the place of a static one that has left for a while: it gets all that was the other's.
    fn replace_member(&mut self, old: &Str, new: &Str, records: &mut Vec<Record>) {
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

    fn remove(&mut self, id: &Str, records: &mut Vec<Record>) {
        self.change(Change::Current(id.clone(), None), records);
        self.change(Change::Target(id.clone(), None), records);
        self.change(Change::Member(id.clone(), None), records);
    }

    /// What the removal of a member takes to write down, at most, in bytes.
    pub(super) fn removal_bytes(&self, id: &Str) -> usize {
        const EACH: usize = 64;
        let member = self.members.get(id);
        let regex = member.and_then(|member| member.metadata.topic_regex.as_deref());
        let tombstones = 3 * (EACH + self.id.len() + id.len());
        tombstones + regex.map_or(0, |regex| EACH + self.id.len() + regex.len())
    }

    fn is_resolution_due(&self, now: Now, config: &ConsumerGroupConfig) -> bool {
        if self.expression_members.is_empty() {
            return false;
        }
        let Some(resolved_at_ms) = self.resolved_at_ms else {
            return true;
        };
        let age = now.monotonic_ms.saturating_sub(resolved_at_ms);
        let refresh_ms = u64::try_from(config.regex_refresh_interval_ms).unwrap_or(0);
        (self.expressions_stale && age >= RESOLUTION_INTERVAL_MS) || age >= refresh_ms.max(1)
    }

    /// Forgets expressions that nobody subscribes to, resolves those that are new, and all of them when that is due. Whether any of them now matches other
    /// topics than it did.
    fn resolve(
        &mut self,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> bool {
        if self.expressions.is_empty() && self.expression_members.is_empty() {
            return false;
        }
        self.forget_expressions(records);
        let all = self.is_resolution_due(now, config);
        let wanted: Vec<Str> = self
            .expression_members
            .keys()
            .filter(|regex| all || !self.expressions.contains_key(*regex))
            .cloned()
            .collect();
        let mut changed = false;
        for regex in wanted {
            if !self.compiled.contains_key(&regex)
                && let Ok(compiled) = Expression::compile(&regex)
            {
                self.compiled.insert(regex.clone(), compiled);
            }
            // One that was valid to whoever wrote it down, and is not to us, matches nothing.
            let compiled = self.compiled.get(&regex);
            let resolved = compiled
                .map(|compiled| compiled.resolve(topics, now.wall_ms))
                .unwrap_or_default();
            let known = self.expressions.get(&regex);
            if known.is_none_or(|known| known.topics != resolved.topics) {
                changed |= known.is_some() || !resolved.topics.is_empty();
                self.change(Change::Expression(regex, Some(resolved)), records);
            }
        }
        if all {
            self.resolved_at_ms = Some(now.monotonic_ms);
            self.expressions_stale = topics.version() < self.noted_version;
        }
        changed
    }

    fn forget_expressions(&mut self, records: &mut Vec<Record>) {
        let orphans: Vec<Str> = self
            .expressions
            .keys()
            .filter(|regex| !self.expression_members.contains_key(*regex))
            .cloned()
            .collect();
        for regex in orphans {
            self.change(Change::Expression(regex, None), records);
        }
    }

    /// Moves the group to its next epoch if subscriptions have changed, or their topics have.
    fn refresh(&mut self, changed: bool, topics: &dyn TopicView, records: &mut Vec<Record>) {
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

    fn leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = match &request.instance_id {
            None => request.member_id.clone(),
            Some(instance_id) => {
                let holder = self.static_member(instance_id);
                check_instance(holder, &request.member_id, instance_id)?
                    .id
                    .clone()
            }
        };
        let member = self
            .members
            .get(&id)
            .ok_or_else(|| self.unknown_member(&id))?;
        if request.instance_id.is_some() && request.member_epoch == LEAVE_STATIC_EPOCH {
            // It keeps what it had for whoever comes in its place; what it was giving up it has given up.
            let mut current = Current {
                epoch: LEAVE_STATIC_EPOCH,
                revoking: Owned::new(),
                ..member.current.clone()
            };
            for partitions in current.assigned.values_mut() {
                partitions.values_mut().for_each(|since| *since = 0);
            }
            self.change(Change::Current(member.id.clone(), Some(current)), records);
        } else {
            let id = member.id.clone();
            self.fence(&[id], Some(topics), records);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Removes members, and moves the group to its next epoch.
    pub(super) fn fence(
        &mut self,
        ids: &[Str],
        topics: Option<&dyn TopicView>,
        records: &mut Vec<Record>,
    ) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.remove(id, records);
        }
        self.forget_expressions(records);
        let hash = match topics {
            Some(topics) => self.current_hash(topics),
            // What the others subscribe to is looked at with their next heartbeat.
            None => {
                self.metadata_stale = true;
                self.metadata_hash
            }
        };
        let next = Change::Epoch(Some((self.epoch.saturating_add(1), hash)));
        self.change(next, records);
    }

    /// Removes members whose time is up. Not all of them when there are very many: ask [`ConsumerGroup::next_deadline`] again.
    pub fn on_timeout(
        &mut self,
        now: Now,
        config: &ConsumerGroupConfig,
        records: &mut Vec<Record>,
    ) {
        let mut fenced = Vec::new();
        let mut bytes = 0;
        while bytes < config.batch_bytes_max / 4
            && let Some((id, timer)) = self.timers.expired(now.monotonic_ms)
        {
            let Some(member) = self.members.get(&id) else {
                continue;
            };
            // A static member that has left for a while in the middle of it has nothing to give up any more.
            if timer == Timer::Rebalance && (has_left(member) || !member.must_revoke()) {
                continue;
            }
            self.timers.cancel_all(&id);
            bytes += self.removal_bytes(&id);
            fenced.push(id);
        }
        self.fence(&fenced, None, records);
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

fn has_left(member: &Member) -> bool {
    member.current.epoch == LEAVE_STATIC_EPOCH
}

/// Whether a static member's name is free to be taken over.
fn check_released(holder: &Member, id: &str, instance_id: &str) -> Result<(), Refusal> {
    Refusal::unless(
        has_left(holder) || holder.is_classic(),
        ErrorCode::UNRELEASED_INSTANCE_ID,
        format!(
            "Static member {id} with instance id {instance_id} cannot join the group because the \
             instance id is owned by member {}.",
            holder.id
        ),
    )
}

/// The static member of a name, if it is who it says.
pub(super) fn check_instance<'a>(
    holder: Option<&'a Member>,
    id: &str,
    instance_id: &str,
) -> Result<&'a Member, Refusal> {
    let holder = holder.ok_or_else(|| {
        let message = format!("Instance id {instance_id} is unknown.");
        Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, message)
    })?;
    Refusal::unless(
        holder.id == *id,
        ErrorCode::FENCED_INSTANCE_ID,
        format!(
            "Static member {id} with instance id {instance_id} was fenced by member {}.",
            holder.id
        ),
    )?;
    Ok(holder)
}

/// Fences a member that is not in its epoch; one epoch behind it may be when it has not heard of the new one and owns nothing else.
fn check_epoch(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let (received, current) = (request.member_epoch, &member.current);
    let claimed = request.topic_partitions.as_deref();
    let missed_one = received == current.previous_epoch && claims_only(claimed, &current.assigned);
    let holds = received == JOIN_EPOCH
        || received == current.epoch
        || (received < current.epoch && missed_one);
    let than = if received > current.epoch {
        "greater"
    } else {
        "smaller"
    };
    Refusal::unless(
        holds,
        ErrorCode::FENCED_MEMBER_EPOCH,
        format!(
            "The consumer group member has a {than} member epoch ({received}) than the one known \
             by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            current.epoch
        ),
    )
}

/// A member in a state of a newer version must begin anew.
fn check_state(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let owns_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
    Refusal::unless(
        member.current.state != MemberState::Unknown || owns_nothing,
        ErrorCode::FENCED_MEMBER_EPOCH,
        "The consumer group member is in a unknown state. The member must abandon all its \
         partitions and rejoin.",
    )
}

/// The answer to a heartbeat that is refused.
pub fn refused(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: refusal.code,
        error_message: Some(refusal.message),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
