//! How members go: they leave, run out of time, or are removed by an administrator with LeaveGroup.

use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ringlog_net::messages::leave_group::{MemberIdentity, MemberResponse};
use ringlog_net::{ErrorCode, Str};

use super::assignment::Owned;
use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::group::ConsumerGroup;
use super::identity::{check_instance, has_left};
use super::member::{Current, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Member};
use super::refusal::Refusal;
use super::timers::Timer;
use super::topics::TopicView;
use crate::command::Now;
use crate::record::Record;

impl ConsumerGroup {
    pub(super) fn remove(&mut self, id: &Str, records: &mut Vec<Record>) {
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

    /// The member that leaves with a heartbeat, if it is who it says.
    fn leaving(&self, request: &ConsumerGroupHeartbeatRequest) -> Result<&Member, Refusal> {
        match &request.instance_id {
            None => self
                .members
                .get(&request.member_id)
                .ok_or_else(|| self.unknown_member(&request.member_id)),
            Some(instance_id) => {
                let holder = self.static_member(instance_id);
                check_instance(holder, &request.member_id, instance_id)
            }
        }
    }

    /// The member that leaves with a heartbeat for good, if any does.
    pub(in crate::groups) fn leaving_for_good(
        &self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Option<Str> {
        let member = self.leaving(request).ok()?;
        (request.member_epoch == LEAVE_EPOCH).then(|| member.id.clone())
    }

    pub(super) fn leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let member = self.leaving(request)?;
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
            self.fence(&[id], topics, records);
        }
        Ok(left(request))
    }

    /// Removes members, and moves the group to its next epoch.
    pub(in crate::groups) fn fence(
        &mut self,
        ids: &[Str],
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.remove(id, records);
        }
        self.forget_expressions(records);
        let hash = self.current_hash(topics);
        let next = Change::Epoch(Some((self.epoch.saturating_add(1), hash)));
        self.change(next, records);
    }

    /// Members whose time is up; their timers run no longer. Not all of them when there are very many: ask [`ConsumerGroup::next_deadline`] again.
    pub fn expired(&mut self, now: Now, config: &ConsumerGroupConfig) -> Vec<Str> {
        let mut expired = Vec::new();
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
            expired.push(id);
        }
        expired
    }

    /// Members whose time is up stay for a moment, until what becomes of it fits into a batch.
    pub(in crate::groups) fn put_off(&mut self, ids: &[Str], now: Now) {
        for id in ids {
            let deadline_ms = now.monotonic_ms.saturating_add(1);
            self.timers.set(id, Timer::Session, deadline_ms);
        }
    }

    /// Who is to be removed, by ids or by the names of static members, as far as that fits into one batch; what is beyond fails.
    pub(in crate::groups) fn find_leaving(
        &self,
        leaving: &[MemberIdentity],
        batch_bytes_max: usize,
    ) -> (Vec<Str>, Vec<MemberResponse>) {
        let mut removed = Vec::new();
        let mut bytes = 0;
        let mut answers = Vec::with_capacity(leaving.len());
        for identity in leaving {
            let id = match &identity.group_instance_id {
                None => Ok(identity.member_id.clone()),
                Some(instance_id) => {
                    let holder = self.static_member(instance_id);
                    // Without an id whoever holds the name is meant.
                    let id = match holder {
                        Some(holder) if identity.member_id.is_empty() => &holder.id,
                        _ => &identity.member_id,
                    };
                    check_instance(holder, id, instance_id).map(|holder| holder.id.clone())
                }
            };
            let error_code = match id.map(|id| (self.members.contains_key(&id), id)) {
                Err(refusal) => refusal.code,
                Ok((false, _)) => ErrorCode::UNKNOWN_MEMBER_ID,
                Ok((true, _)) if bytes > batch_bytes_max / 2 => ErrorCode::UNKNOWN_SERVER_ERROR,
                Ok((true, id)) => {
                    if !removed.contains(&id) {
                        bytes += self.removal_bytes(&id);
                        removed.push(id);
                    }
                    ErrorCode::NONE
                }
            };
            answers.push(MemberResponse {
                member_id: identity.member_id.clone(),
                group_instance_id: identity.group_instance_id.clone(),
                error_code,
            });
        }
        (removed, answers)
    }
}

/// The answer to the heartbeat of a member that is gone.
pub fn left(request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        member_id: Some(request.member_id.clone()),
        member_epoch: request.member_epoch,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
