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
use super::member::{Current, LEAVE_STATIC_EPOCH};
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

    pub(super) fn leave(
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

    /// Removes members, by their ids or by the names of static members, as far as that fits into one batch; what is beyond fails.
    pub(in crate::groups) fn remove_members(
        &mut self,
        leaving: &[MemberIdentity],
        batch_bytes_max: usize,
        records: &mut Vec<Record>,
    ) -> Vec<MemberResponse> {
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
        self.fence(&removed, None, records);
        answers
    }
}
