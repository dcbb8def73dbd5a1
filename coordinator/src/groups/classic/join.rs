//! JoinGroup: who may come in, under which id, and whether that starts a rebalance.

use std::fmt::Write;

use ringlog_net::messages::join_group::{
    JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::member::{self, Member, Protocol, protocols};
use super::{ClassicGroup, PENDING_MEMBER_BYTES, State, answer_removed, restart_session};
use crate::Caller;
use crate::groups::config::GroupConfig;
use crate::groups::context::{Context, Waiting, join_error, protocol_name};
use crate::groups::timers::TimerKey;

/// From this version on a member must come back with the id it was given, so that lost answers leave no dead members (KIP-394).
pub(crate) const FIRST_WITH_KNOWN_MEMBER_ID: i16 = 4;
/// From this version on a leader can be told that its group needs no assignment (KIP-814).
pub(super) const FIRST_WITH_SKIP_ASSIGNMENT: i16 = 9;

/// What a JoinGroup offers, in memory of its own.
pub(crate) struct Offer {
    pub(crate) protocols: Box<[Protocol]>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
}

impl Offer {
    pub(crate) fn new(version: i16, request: &JoinGroupRequest) -> Self {
        Self {
            protocols: protocols(&request.protocols),
            // The first version knew one timeout for both.
            rebalance_timeout_ms: if version == 0 {
                request.session_timeout_ms
            } else {
                request.rebalance_timeout_ms.max(0)
            },
            session_timeout_ms: request.session_timeout_ms,
        }
    }
}

impl ClassicGroup {
    /// Handles a JoinGroup; it is answered now or when all have joined.
    pub(crate) fn join(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        context: &mut Context<'_>,
    ) {
        let member_id = &request.member_id;
        if !self.accepts(member_id, context.config) {
            self.remove(member_id, context);
            refuse(
                caller,
                Str::default(),
                ErrorCode::GROUP_MAX_SIZE_REACHED,
                context,
            );
            self.complete_join_if_all_are_there(context);
            return;
        }
        let offer = Offer::new(caller.version, request);
        if !self.supports(&request.protocol_type, &offer.protocols) {
            let error = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
            refuse(caller, member_id.clone(), error, context);
        } else if member_id.is_empty() {
            self.join_without_id(caller, request, offer, context);
        } else if self.pending.contains_key(member_id) && request.group_instance_id.is_none() {
            self.remove_pending(member_id, context);
            self.add_joining(caller, member_id.detached(), request, offer, context);
        } else {
            self.join_again(caller, request, offer, context);
        }
    }

    /// Whether there is room. While members join, those who came count, so that the last to come stay outside when the limit was lowered.
    fn accepts(&self, member_id: &str, config: &GroupConfig) -> bool {
        let size_max = usize::try_from(config.max_size).unwrap_or(0);
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.join.is_some()) || self.joined < size_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < size_max
            }
        }
    }

    fn join_without_id(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        offer: Offer,
        context: &mut Context<'_>,
    ) {
        let new_id = new_member_id(
            request
                .group_instance_id
                .as_ref()
                .unwrap_or(&caller.client_id),
            caller.fresh_id,
        );
        if let Some(instance_id) = &request.group_instance_id {
            match self.static_member(instance_id).cloned() {
                Some(old_id) => self.join_replacing(caller, &old_id, new_id, offer, context),
                None => self.add_joining(caller, new_id, request, offer, context),
            }
        } else if caller.version >= FIRST_WITH_KNOWN_MEMBER_ID {
            self.give_id(caller, new_id, request.session_timeout_ms, context);
        } else {
            self.add_joining(caller, new_id, request, offer, context);
        }
    }

    /// Tells a member its id, with which it must come back.
    fn give_id(
        &mut self,
        caller: &Caller,
        new_id: Str,
        session_timeout_ms: i32,
        context: &mut Context<'_>,
    ) {
        if self.pending.len() >= context.config.pending_members_max {
            refuse(
                caller,
                Str::default(),
                ErrorCode::GROUP_MAX_SIZE_REACHED,
                context,
            );
            return;
        }
        let key = TimerKey::Session {
            group: self.id.clone(),
            member: new_id.clone(),
        };
        let deadline = context.deadline(session_timeout_ms);
        let mut timer = None;
        context.timers.start(&mut timer, deadline, key);
        self.bytes += PENDING_MEMBER_BYTES + new_id.len();
        self.pending.insert(new_id.clone(), timer);
        refuse(caller, new_id, ErrorCode::MEMBER_ID_REQUIRED, context);
    }

    fn add_joining(
        &mut self,
        caller: &Caller,
        id: Str,
        request: &JoinGroupRequest,
        offer: Offer,
        context: &mut Context<'_>,
    ) {
        let mut member = Box::new(Member {
            id,
            instance_id: request.group_instance_id.as_ref().map(Str::detached),
            client_id: caller.client_id.as_str().into(),
            client_host: caller.client_host.as_str().into(),
            rebalance_timeout_ms: offer.rebalance_timeout_ms,
            session_timeout_ms: offer.session_timeout_ms,
            protocols: offer.protocols,
            assignment: ringlog_net::Bytes::new(),
            join: Some(caller.into()),
            sync: None,
            session: None,
            is_new: true,
            owes_sync: false,
        });
        // A member that does not know its id cannot send heartbeats, and whoever gave up may come again under another id: hold it for a bounded time.
        let timeout_ms = context.config.new_member_join_timeout_ms;
        restart_session(&self.id, &mut member, timeout_ms, context);
        if self.state == State::PreparingRebalance && self.is_initial {
            self.has_new_member = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(member::protocol_name(&request.protocol_type));
        }
        self.add(member);
        self.rebalance_or_complete_join(context);
    }

    /// A member that has an id, or says so.
    fn join_again(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        offer: Offer,
        context: &mut Context<'_>,
    ) {
        let member_id = &request.member_id;
        let checked = self.check_member(member_id, request.group_instance_id.as_ref());
        let member = match (checked, self.members.get(member_id)) {
            (Ok(()), Some(member)) => member,
            (checked, _) => {
                let error = checked.err().unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID);
                return refuse(caller, member_id.clone(), error, context);
            }
        };
        let is_unchanged = member.protocols == offer.protocols;
        let knows_all = match self.state {
            State::Empty | State::PreparingRebalance => false,
            // It may not have received the answer to its first.
            State::CompletingRebalance => is_unchanged,
            // A leader comes back because something changed that its metadata does not show.
            State::Stable => is_unchanged && !self.is_leader(member_id),
        };
        if knows_all {
            let reply = self.joined_reply(member_id.clone(), caller.version);
            context.out.reply(caller.token, reply);
        } else {
            let id = member.id.clone();
            self.update(&id, offer);
            self.park_join(&id, caller.into(), context);
            self.rebalance_or_complete_join(context);
        }
    }

    fn update(&mut self, member_id: &str, offer: Offer) {
        if let Some(mut member) = self.take(member_id) {
            member.protocols = offer.protocols;
            member.rebalance_timeout_ms = offer.rebalance_timeout_ms;
            member.session_timeout_ms = offer.session_timeout_ms;
            self.add(member);
        }
    }

    /// A static member comes back under a new id: it takes the place of its older self, whose requests are fenced (KIP-345).
    fn join_replacing(
        &mut self,
        caller: &Caller,
        old_id: &Str,
        new_id: Str,
        offer: Offer,
        context: &mut Context<'_>,
    ) {
        let leader_before = self.leader.clone();
        if !self.rename(old_id, &new_id, context) {
            return refuse(
                caller,
                Str::default(),
                ErrorCode::UNKNOWN_MEMBER_ID,
                context,
            );
        }
        self.update(&new_id, offer);
        self.restart_session(&new_id, context);
        if self.state == State::Stable && self.select_protocol() == self.protocol_name {
            // Nothing changes for the others. The new id is written down before it is given out.
            if self.store(context) {
                let leader_before = leader_before.unwrap_or_default();
                let reply = self.replaced_reply(&new_id, leader_before, caller.version);
                context.out.reply(caller.token, reply);
                return;
            }
        }
        self.park_join(&new_id, caller.into(), context);
        self.rebalance_or_complete_join(context);
    }

    /// Gives a static member another id.
    fn rename(&mut self, old_id: &Str, new_id: &Str, context: &mut Context<'_>) -> bool {
        let Some(mut member) = self.take(old_id) else {
            return false;
        };
        context.timers.stop(&mut member.session);
        let error = ErrorCode::FENCED_INSTANCE_ID;
        answer_removed(&mut member, old_id.clone(), error, context);
        member.id = new_id.clone();
        member.is_new = false;
        if let Some(instance_id) = &member.instance_id
            && let Ok(position) = self.instance_position(instance_id)
        {
            self.instances[position].1 = new_id.clone();
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.add(member);
        true
    }

    /// The generation, and for the leader the members, as a member is told.
    pub(super) fn joined_reply(&self, member_id: Str, version: i16) -> JoinGroupResponse {
        let members = if self.is_leader(&member_id) {
            self.members
                .iter()
                .map(|member| JoinGroupResponseMember {
                    member_id: member.id.clone(),
                    group_instance_id: member.instance_id.clone(),
                    metadata: self
                        .protocol_name
                        .as_ref()
                        .and_then(|protocol| member.metadata(protocol))
                        .cloned()
                        .unwrap_or_default(),
                })
                .collect()
        } else {
            Vec::new()
        };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: protocol_name(version, self.protocol_name.clone()),
            leader: self.leader.clone().unwrap_or_default(),
            member_id,
            members,
            ..JoinGroupResponse::default()
        }
    }

    /// Tells everybody who waits that the generation has begun.
    pub(super) fn answer_joins(&mut self, context: &mut Context<'_>) {
        let waiting: Vec<(Str, Waiting)> = self
            .members
            .iter_mut()
            .filter_map(|member| Some((member.id.clone(), member.join.take()?)))
            .collect();
        self.joined = 0;
        for (member_id, Waiting { token, version }) in waiting {
            let reply = self.joined_reply(member_id, version);
            context.out.reply(token, reply);
        }
    }
}

/// Answers with an error at once.
fn refuse(caller: &Caller, member_id: Str, error: ErrorCode, context: &mut Context<'_>) {
    let reply = join_error(caller.version, member_id, error);
    context.out.reply(caller.token, reply);
}

/// A name that a person recognises in logs, a dash, and what nobody else has, as Java writes a UUID.
fn new_member_id(name: &str, fresh_id: Uuid) -> Str {
    let mut id = String::with_capacity(name.len() + 37);
    id.push_str(name);
    id.push('-');
    for (index, byte) in fresh_id.0.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    Str::from(id)
}
