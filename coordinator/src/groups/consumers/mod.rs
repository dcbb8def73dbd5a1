//! Consumer groups (KIP-848) among the others: who is given a request, what becomes of a group when the other protocol is spoken to it, and its timer.
//!
//! A group without members is of the protocol of who joins it first (KIP-848's offline migration): its offsets stay. How a group with members changes its protocol
//! is in [`super::migration`].

mod news;
#[cfg(test)]
mod tests;

use ringlog_net::messages::consumer_group_describe::DescribedGroup;
use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::classic::{ClassicGroup, State, Subscription};
use super::consumer::{Change, ConsumerGroup, Refusal, TopicView, left, member, refused, request};
use super::context::bytes_of;
use super::group::{Group, GroupKind};
use super::reply::GroupReply;
use super::stored::ReplayError;
use super::timers::{TimerHandle, TimerKey};
use super::{GroupCoordinator, stored};
use crate::{Caller, Commands, Now};

pub(crate) use self::news::News;

/// A consumer group, and the timer that runs for it.
#[derive(Debug)]
pub(crate) struct HeldConsumerGroup {
    pub(crate) group: Box<ConsumerGroup>,
    /// Ends when the first of the group's own timers does.
    pub(crate) timer: Option<TimerHandle>,
    /// The news of topics that it has been told.
    pub(super) heard: u64,
}

impl HeldConsumerGroup {
    fn new(group: ConsumerGroup) -> Self {
        Self {
            group: Box::new(group),
            timer: None,
            heard: 0,
        }
    }
}

impl ConsumerGroup {
    /// The topics that its members read.
    pub(super) fn subscription(&self) -> Subscription {
        Subscription::Topics(self.subscribed_topics())
    }
}

impl GroupCoordinator {
    /// Handles a ConsumerGroupHeartbeat, versions 0 and 1. Answered at once.
    pub fn consumer_group_heartbeat(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        let checked = request::check(request, caller.version, &self.config.consumer)
            .and_then(|()| self.check_consumer_group(request))
            .and_then(|()| self.check_member_bytes(request));
        if let Err(refusal) = checked {
            self.note_refused_upgrade(request, out);
            out.reply(caller.token, refused(refusal));
            return;
        }
        if self.consumer_group(&request.group_id).is_some() {
            self.beat(caller, request, topics, out);
        } else {
            let response = self.join_new_consumer_group(caller, request, topics, out);
            out.reply(caller.token, response.unwrap_or_else(refused));
        }
    }

    fn beat(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        let group = self.consumer_group(&request.group_id);
        if let Some(gone) = group.and_then(|group| group.leaving_for_good(request)) {
            self.remove_consumer_members(&request.group_id, &[gone], topics, caller.now, out);
            out.reply(caller.token, left(request));
            return;
        }
        self.with_consumer(&request.group_id, |group, config| {
            group.heartbeat(caller, request, config, topics, out);
        });
    }

    /// Makes a group of its first consumer, in the place of a classic one if there is one, whose members stay. When the consumer is refused all stays as it was.
    fn join_new_consumer_group(
        &mut self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = request.group_id.detached();
        let classic = self.groups.get(&id).and_then(|group| group.as_classic());
        let (mut group, mut records) = match classic {
            None => (ConsumerGroup::new(id.clone()), Vec::new()),
            Some(classic) if classic.state() == State::Empty => {
                let tombstone = stored::group_tombstone(&id);
                (
                    ConsumerGroup::new(id.clone()),
                    tombstone.into_iter().collect(),
                )
            }
            Some(classic) => self.upgraded(classic, topics)?,
        };
        group.loaded(caller.now, &self.config.consumer);
        let mut made: Commands<ConsumerGroupHeartbeatResponse> = Commands::default();
        group.heartbeat(caller, request, &self.config.consumer, topics, &mut made);
        records.append(&mut made.records);
        let Some((_, response)) = made.replies.pop() else {
            unreachable!("a heartbeat is answered at once");
        };
        if response.error_code.is_error() {
            return Ok(response);
        }
        let bytes = bytes_of(&records);
        Refusal::unless(
            bytes <= self.config.batch_bytes_max,
            ErrorCode::UNKNOWN_SERVER_ERROR,
            format!(
                "The group that is to become a consumer group takes {bytes} bytes to write down at once."
            ),
        )?;
        out.records.append(&mut records);
        self.with_classic(&id, caller.now, out, |group, context| {
            group.dissolve(context);
        });
        self.put_consumer_group(&id, group, caller.now, out);
        self.arm_consumer_timer(&id);
        Ok(response)
    }

    /// Puts a consumer group in the place of what there is of its id; offsets stay.
    fn put_consumer_group(
        &mut self,
        id: &Str,
        group: ConsumerGroup,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        let bytes = group.bytes();
        let kind = GroupKind::Consumer(HeldConsumerGroup::new(group));
        self.put_kind(id, kind, bytes, now, out);
    }

    pub(super) fn put_kind(
        &mut self,
        id: &Str,
        kind: GroupKind,
        bytes: usize,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        self.member_bytes += bytes;
        match self.groups.get_mut(id) {
            None => {
                self.groups.insert(id.clone(), Group::of_kind(kind));
            }
            Some(group) => {
                self.member_bytes -= group.member_bytes();
                let mut old = std::mem::replace(&mut group.kind, kind);
                self.stop_timers(&mut old, now, out);
            }
        }
    }

    /// Whether a heartbeat may go to the group of its name.
    fn check_consumer_group(&self, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
        let id = &request.group_id;
        let joins = request.member_epoch == member::JOIN_EPOCH;
        let not_found = |why: &str| {
            let message = format!("Group {id} {why}.");
            Err(Refusal::new(ErrorCode::GROUP_ID_NOT_FOUND, message))
        };
        match self.groups.get(id).map(|group| &group.kind) {
            Some(GroupKind::Consumer(_)) => Ok(()),
            None if !joins => not_found("not found"),
            None if self.groups.len() >= self.config.groups_max => {
                let message = "This coordinator holds as many groups as it may.";
                Err(Refusal::new(ErrorCode::POLICY_VIOLATION, message))
            }
            None => Ok(()),
            Some(GroupKind::Classic(_)) if !joins => not_found("is not a consumer group"),
            Some(GroupKind::Classic(group)) if group.state() == State::Empty => Ok(()),
            Some(GroupKind::Classic(group)) => self.check_upgrade(group),
        }
    }

    /// Whether there is memory for what a member says; who is in already stays in.
    fn check_member_bytes(&self, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
        let names = request
            .subscribed_topic_names
            .as_deref()
            .unwrap_or_default();
        let bytes: usize = names.iter().map(|name| name.len()).sum();
        let grows = request.member_epoch == member::JOIN_EPOCH || bytes > 0;
        let known = self.consumer_group(&request.group_id).is_some_and(|group| {
            group
                .member(&request.member_id)
                .is_some_and(|member| bytes <= member.metadata.bytes())
        });
        Refusal::unless(
            !grows || known || self.member_bytes + bytes <= self.config.members_bytes_max,
            ErrorCode::GROUP_MAX_SIZE_REACHED,
            "The members of this coordinator's groups take as much memory as they may.",
        )
    }

    /// The consumer group of an id, if it is one.
    pub(super) fn consumer_group(&self, group_id: &str) -> Option<&ConsumerGroup> {
        self.groups.get(group_id)?.as_consumer()
    }

    /// Handles one group of a ConsumerGroupDescribe, versions 0 and 1. Authorized operations are left to the caller. Answered at once.
    pub fn consumer_group_describe(
        &mut self,
        caller: &Caller,
        group_id: Str,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        let described = match self.groups.get(&group_id).map(|group| group.as_consumer()) {
            Some(Some(group)) => group.describe(&self.config.consumer, topics),
            other => DescribedGroup {
                error_code: ErrorCode::GROUP_ID_NOT_FOUND,
                error_message: Some(Str::from(match other {
                    None => format!("Group {group_id} not found."),
                    Some(_) => format!("Group {group_id} is not a consumer group."),
                })),
                group_id,
                ..DescribedGroup::default()
            },
        };
        out.reply(caller.token, described);
    }

    /// Topics were created, deleted or got partitions: those named here. Groups that read them are looked at with their members' next heartbeats.
    pub fn on_metadata(&mut self, changed: &[Str], topics: &dyn TopicView) {
        self.news.add(changed, topics);
    }

    /// The timer of a consumer group ended.
    pub(super) fn on_consumer_timeout(
        &mut self,
        group_id: &Str,
        topics: &dyn TopicView,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        let group = self.groups.get_mut(group_id);
        if let Some(held) = group.and_then(|group| group.as_consumer_mut()) {
            held.timer = None;
        }
        let gone = self.with_consumer(group_id, |group, config| group.expired(now, config));
        self.remove_consumer_members(group_id, &gone.unwrap_or_default(), topics, now, out);
    }

    /// Lets the timer of a consumer group end when the first of the group's own does.
    pub(super) fn arm_consumer_timer(&mut self, group_id: &Str) {
        let group = self.groups.get_mut(group_id);
        let Some(held) = group.and_then(|group| group.as_consumer_mut()) else {
            return;
        };
        match held.group.next_deadline() {
            Some(deadline_ms) => {
                let key = TimerKey::Consumer(held.group.id().clone());
                self.timers.start(&mut held.timer, deadline_ms, key);
            }
            None => self.timers.stop(&mut held.timer),
        }
    }

    /// Makes a classic group of a consumer group without members, for a member that speaks the classic protocol. Whether it did.
    pub(super) fn downgrade_empty(
        &mut self,
        group_id: &Str,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let Some(group) = self
            .consumer_group(group_id)
            .filter(|group| group.is_empty())
        else {
            return false;
        };
        out.records.extend(group.tombstones());
        let classic = ClassicGroup::new(group_id, Some(now.wall_ms));
        let bytes = classic.bytes();
        self.put_kind(group_id, GroupKind::Classic(classic), bytes, now, out);
        true
    }

    /// Takes in a record of a consumer group.
    pub(super) fn replay_change(&mut self, id: &Str, change: Change) -> Result<(), ReplayError> {
        if let Some(held) = self
            .groups
            .get_mut(id)
            .and_then(|group| group.as_consumer_mut())
        {
            let before = held.group.bytes();
            let is_end = change == Change::Epoch(None);
            held.group.replay(change);
            self.member_bytes = self.member_bytes + held.group.bytes() - before;
            if is_end {
                self.end_consumer_group(id);
            }
            return Ok(());
        }
        if change.is_tombstone() {
            return Ok(());
        }
        let is_in_use = self
            .groups
            .get(id)
            .is_some_and(|group| !group.is_deserted());
        if is_in_use {
            let problem = "a record of a consumer group, and a classic group with members";
            return Err(ReplayError::Contradiction(problem));
        }
        let mut group = ConsumerGroup::new(id.clone());
        group.replay(change);
        let bytes = group.bytes();
        let kind = GroupKind::Consumer(HeldConsumerGroup::new(group));
        self.member_bytes += bytes;
        match self.groups.get_mut(id) {
            Some(simple) => {
                self.member_bytes -= simple.member_bytes();
                simple.kind = kind;
            }
            None => {
                self.groups.insert(id.clone(), Group::of_kind(kind));
            }
        }
        Ok(())
    }

    /// A consumer group was deleted, or is to become a classic one: of its offsets other records tell.
    fn end_consumer_group(&mut self, id: &Str) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        self.member_bytes -= group.member_bytes();
        if group.offsets.is_empty() && group.unstable.is_empty() {
            self.groups.remove(id);
        } else {
            group.kind = GroupKind::Classic(ClassicGroup::new(id, None));
        }
    }

    /// All records were taken in: the members of a consumer group have all their time from now.
    pub(super) fn load_consumer_group(&mut self, group_id: &Str, now: Now) {
        if let Some(held) = self
            .groups
            .get_mut(group_id)
            .and_then(|group| group.as_consumer_mut())
        {
            held.group.loaded(now, &self.config.consumer);
        }
        self.arm_consumer_timer(group_id);
    }
}
