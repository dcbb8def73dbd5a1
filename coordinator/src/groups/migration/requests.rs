//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup for a consumer group with members.

use ringlog_net::messages::heartbeat::HeartbeatRequest;
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::leave_group::{MemberIdentity, MemberResponse};
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use ringlog_net::{ErrorCode, Str};

use crate::groups::GroupCoordinator;
use crate::groups::consumer::classic::Checked;
use crate::groups::consumer::{ConsumerGroup, ConsumerGroupConfig, TopicView};
use crate::groups::context::join_error;
use crate::groups::reply::GroupReply;
use crate::{Caller, Commands, Now};

impl GroupCoordinator {
    /// Lets a consumer group handle an event, with the latest news of topics. `None` if there is no such group.
    pub(in crate::groups) fn with_consumer<R>(
        &mut self,
        group_id: &Str,
        handle: impl FnOnce(&mut ConsumerGroup, &ConsumerGroupConfig) -> R,
    ) -> Option<R> {
        let held = self.groups.get_mut(group_id)?.as_consumer_mut()?;
        self.news.tell(&mut held.group, &mut held.heard);
        let before = held.group.bytes();
        let result = handle(&mut held.group, &self.config.consumer);
        self.member_bytes = self.member_bytes + held.group.bytes() - before;
        self.arm_consumer_timer(group_id);
        Some(result)
    }

    /// JoinGroup for a consumer group with members. Whether it is one.
    pub(in crate::groups) fn join_consumer_group(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let group = self.consumer_group(&request.group_id);
        let Some(group) = group.filter(|group| !group.is_empty()) else {
            return false;
        };
        let checked = group.check_classic_join(caller, request, &self.config.consumer);
        let refused = |member_id, error| join_error(caller.version, member_id, error);
        let reply = match checked {
            Err(refusal) => refused(request.member_id.clone(), refusal.code),
            Ok(Checked::NeedsId(id)) => refused(id, ErrorCode::MEMBER_ID_REQUIRED),
            Ok(Checked::Joins(joining)) => {
                if self.join_downgrading(caller, request, &joining, topics, out) {
                    return true;
                }
                let joined = self.with_consumer(&request.group_id, |group, config| {
                    group.join_classic(&joining, caller, config, topics, &mut out.records)
                });
                let joined = joined.unwrap_or(Err(ErrorCode::UNKNOWN_MEMBER_ID));
                joined.unwrap_or_else(|error| refused(request.member_id.clone(), error))
            }
        };
        out.reply(caller.token, reply);
        true
    }

    /// SyncGroup for a consumer group. None if it is no consumer group.
    pub(in crate::groups) fn sync_consumer_group(
        &mut self,
        request: &SyncGroupRequest,
        topics: &dyn TopicView,
        now: Now,
    ) -> Option<Result<SyncGroupResponse, ErrorCode>> {
        self.with_consumer(&request.group_id, |group, _| {
            group.sync_classic(request, now, topics)
        })
    }

    /// Heartbeat for a consumer group. None if it is no consumer group.
    pub(in crate::groups) fn heartbeat_consumer_group(
        &mut self,
        request: &HeartbeatRequest,
        topics: &dyn TopicView,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> Option<Result<(), ErrorCode>> {
        self.with_consumer(&request.group_id, |group, config| {
            group.heartbeat_classic(
                &request.member_id,
                request.group_instance_id.as_ref(),
                request.generation_id,
                now,
                config,
                topics,
                &mut out.records,
            )
        })
    }

    /// LeaveGroup for a consumer group: members that speak the classic protocol go, or an administrator removes any. None if it is no consumer group.
    pub(in crate::groups) fn leave_consumer_group(
        &mut self,
        group_id: &Str,
        leaving: &[MemberIdentity],
        topics: &dyn TopicView,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> Option<Vec<MemberResponse>> {
        let group = self.consumer_group(group_id)?;
        let (gone, answers) = group.find_leaving(leaving, self.config.batch_bytes_max);
        self.remove_consumer_members(group_id, &gone, topics, now, out);
        Some(answers)
    }
}
