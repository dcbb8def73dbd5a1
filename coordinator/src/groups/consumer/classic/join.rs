//! JoinGroup of a member of a consumer group.

use std::sync::Arc;

use ringlog_net::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use ringlog_net::{ErrorCode, Str};

use crate::command::{Caller, Now};
use crate::groups::NAME_BYTES_MAX;
use crate::groups::classic::{self, Offer};
use crate::groups::consumer::change::Change;
use crate::groups::consumer::config::{ConsumerGroupConfig, MigrationPolicy};
use crate::groups::consumer::embedded::Subscription;
use crate::groups::consumer::group::ConsumerGroup;
use crate::groups::consumer::identity::check_instance;
use crate::groups::consumer::member::{Classic, Member, Metadata};
use crate::groups::consumer::refusal::Refusal;
use crate::groups::consumer::timers::Timer;
use crate::groups::consumer::topics::TopicView;
use crate::groups::context::{bytes_of, protocol_name};
use crate::record::Record;

/// The longest id that is taken: those that classic groups give out are a name, a dash and a UUID.
const MEMBER_ID_BYTES_MAX: usize = NAME_BYTES_MAX + 64;

/// A JoinGroup that was looked at, and has changed nothing yet.
pub(in crate::groups) enum Checked {
    /// The member is to come again with this id (KIP-394).
    NeedsId(Str),
    /// It may come in.
    Joins(Joining),
}

/// A member that may come in.
pub(in crate::groups) struct Joining {
    pub(in crate::groups) id: Str,
    /// The static member that it takes the place of.
    pub(in crate::groups) replaces: Option<Str>,
    metadata: Arc<Metadata>,
    subscription: Subscription,
}

impl ConsumerGroup {
    /// Finds out who joins, and refuses who may not.
    pub(in crate::groups) fn check_classic_join(
        &self,
        caller: &Caller,
        request: &JoinGroupRequest,
        config: &ConsumerGroupConfig,
    ) -> Result<Checked, Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        if config.migration_policy == MigrationPolicy::Disabled {
            let message = "The group's protocol cannot be changed while it has members.";
            return refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, message.to_owned());
        }
        let is_unknown = request.member_id.is_empty();
        let instance_id = request.group_instance_id.as_ref();
        let holder = instance_id.and_then(|instance_id| self.static_member(instance_id));
        let id = if is_unknown {
            Str::from(caller.fresh_id.to_string())
        } else {
            request.member_id.detached()
        };
        let replaces = holder.filter(|_| is_unknown).map(|held| held.id.clone());
        let is_in = replaces.is_some() || self.members.contains_key(&id);
        if !is_in && self.members.len() >= config.members_max() {
            let message = "The group has as many members as it may.";
            return refuse(ErrorCode::GROUP_MAX_SIZE_REACHED, message.to_owned());
        }
        let offer = Offer::new(caller.version, request);
        if !self.supports(&request.protocol_type, &offer) {
            let message = format!("The protocols of member {id} are not those of the group.");
            return refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, message);
        }
        if id.len() > MEMBER_ID_BYTES_MAX {
            let message = "The member's id is too long.";
            return refuse(ErrorCode::INVALID_REQUEST, message.to_owned());
        }
        if is_unknown
            && instance_id.is_none()
            && caller.version >= classic::FIRST_WITH_KNOWN_MEMBER_ID
        {
            return Ok(Checked::NeedsId(id));
        }
        if let Some(instance_id) = instance_id.filter(|_| !is_unknown) {
            check_instance(holder, &id, instance_id)?;
        }
        // All protocols of a member say the same.
        let said = offer.protocols.first().map(|first| &first.metadata);
        let Some(Ok(subscription)) = said.map(Subscription::read) else {
            let message = format!("What member {id} says of itself cannot be read.");
            return refuse(ErrorCode::UNKNOWN_SERVER_ERROR, message);
        };
        if !is_in && !is_unknown && subscription.owns_any() {
            // It was removed and has not heard of it. It must not read on what may be others' now.
            return Err(self.unknown_member(&id));
        }
        let nobody = Member::new(id.clone());
        let before = self.members.get(replaces.as_ref().unwrap_or(&id));
        let before = &before.unwrap_or(&nobody).metadata;
        Ok(Checked::Joins(Joining {
            metadata: Arc::new(updated(before, request, caller, offer, &subscription)),
            id,
            replaces,
            subscription,
        }))
    }

    /// Whether a joining member knows a protocol that all others know who speak the classic protocol.
    fn supports(&self, protocol_type: &str, offer: &Offer) -> bool {
        let known_to_all = |name: &Str| {
            let count = self.classic_protocols.get(name).copied().unwrap_or(0);
            count == self.classic_count
        };
        *protocol_type == *Self::PROTOCOL_TYPE
            && offer
                .protocols
                .iter()
                .any(|protocol| known_to_all(&protocol.name))
    }

    /// Takes a joining member in, and one step towards its target.
    ///
    /// # Errors
    /// When that takes more to write down than is allowed. The group is as it was.
    pub(in crate::groups) fn join_classic(
        &mut self,
        joining: &Joining,
        caller: &Caller,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> Result<JoinGroupResponse, ErrorCode> {
        let now = caller.now;
        let id = joining.replaces.as_ref().unwrap_or(&joining.id);
        let names: Vec<Str> = joining.metadata.topic_names.iter().cloned().collect();
        let bytes = joining.metadata.bytes();
        let much = self.may_write_much(id, Some(&names), Some(""), bytes, now, config);
        let before = much.then(|| self.clone());
        let mut made = Vec::new();
        let changed = self.enter_classic(joining, now, config, topics, &mut made);
        self.update_target(now, config, topics, &mut made);
        self.reconcile_classic(joining, changed, now, topics, &mut made);
        if bytes_of(&made) > config.batch_bytes_max
            && let Some(before) = before
        {
            *self = before;
            return Err(ErrorCode::UNKNOWN_SERVER_ERROR);
        }
        records.append(&mut made);
        self.await_sync(&joining.id, now);
        Ok(self.joined_reply(&joining.id, caller.version))
    }

    /// Takes a joining member in as far as nobody else is concerned. Whether it reads other topics than it did.
    pub(in crate::groups) fn enter_classic(
        &mut self,
        joining: &Joining,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> bool {
        let id = &joining.id;
        if let Some(old) = &joining.replaces {
            self.replace_member(old, id, records);
        }
        let known = self.members.get(id).map(|member| member.metadata.clone());
        let before = known.clone().unwrap_or_default();
        if known.is_none() || before != joining.metadata {
            let change = Change::Member(id.clone(), Some(joining.metadata.clone()));
            self.change(change, records);
        }
        let changed = before.topic_names != joining.metadata.topic_names
            || before.topic_regex != joining.metadata.topic_regex;
        let matches_changed = self.resolve(now, config, topics, records);
        self.refresh(changed || matches_changed, topics, records);
        changed
    }

    /// Takes a member that has come in one step towards its target.
    pub(in crate::groups) fn reconcile_classic(
        &mut self,
        joining: &Joining,
        changed: bool,
        now: Now,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        let owned = joining.subscription.owned(topics);
        self.reconcile(&joining.id, changed, Some(&owned), now, topics, records);
    }

    /// A member was told its generation: it has to ask for its assignment.
    fn await_sync(&mut self, id: &Str, now: Now) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let sync_ms = now.monotonic_ms.saturating_add(member.rebalance_timeout());
        self.timers.cancel_all(id);
        self.timers.set(id, Timer::Sync, sync_ms);
        self.restart_classic_session(id, now);
    }

    fn joined_reply(&self, id: &Str, version: i16) -> JoinGroupResponse {
        let member = self.members.get(id);
        let classic = member.and_then(|member| member.metadata.classic.as_ref());
        let protocol = classic.and_then(|classic| classic.protocols.first());
        JoinGroupResponse {
            generation_id: member.map_or(0, |member| member.current.epoch),
            protocol_type: Some(Str::from_static(Self::PROTOCOL_TYPE)),
            protocol_name: protocol_name(version, protocol.map(|(name, _)| name.clone())),
            member_id: id.clone(),
            ..JoinGroupResponse::default()
        }
    }
}

/// What a member says of itself after a JoinGroup.
fn updated(
    before: &Metadata,
    request: &JoinGroupRequest,
    caller: &Caller,
    offer: Offer,
    subscription: &Subscription,
) -> Metadata {
    let instance_id = request.group_instance_id.as_ref().map(Str::detached);
    Metadata {
        instance_id: instance_id.or_else(|| before.instance_id.clone()),
        rack_id: subscription
            .rack_id
            .clone()
            .or_else(|| before.rack_id.clone()),
        client_id: caller.client_id.detached(),
        client_host: caller.client_host.detached(),
        topic_names: subscription.topics.clone(),
        topic_regex: None,
        rebalance_timeout_ms: offer.rebalance_timeout_ms,
        server_assignor: before.server_assignor.clone(),
        classic: Some(Classic {
            session_timeout_ms: offer.session_timeout_ms,
            protocols: offer
                .protocols
                .into_iter()
                .map(|protocol| (protocol.name, protocol.metadata))
                .collect(),
        }),
    }
}
