//! The requests of members: JoinGroup, SyncGroup, Heartbeat and LeaveGroup, checked for what does not depend on the group, and given to it.

use ringlog_net::ErrorCode;
use ringlog_net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use ringlog_net::messages::sync_group::SyncGroupRequest;

use super::classic::ClassicGroup;
use super::consumer::TopicView;
use super::context::{Context, join_error, sync_error};
use super::group::Group;
use super::reply::GroupReply;
use super::{GroupCoordinator, NAME_BYTES_MAX};
use crate::{Caller, Commands};

/// From this version on several members can leave at once.
const FIRST_LEAVE_OF_SEVERAL: i16 = 3;

impl GroupCoordinator {
    /// Handles a JoinGroup, versions 0 to 9. Answered when all members have joined, or at once.
    pub fn join_group(
        &mut self,
        caller: &Caller,
        request: JoinGroupRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        let checked = self.check_join(caller, &request);
        if checked.is_ok() && self.join_consumer_group(caller, &request, topics, out) {
            return;
        }
        let is_downgraded =
            checked.is_ok() && self.downgrade_empty(&request.group_id, caller.now, out);
        let refusal = match checked {
            Ok(()) if self.groups.contains_key(&request.group_id) => {
                let joined =
                    self.with_classic(&request.group_id, caller.now, out, |group, context| {
                        group.join(caller, &request, context);
                        if is_downgraded && !group.is_deserted() {
                            group.store_new(context);
                        }
                    });
                joined
                    .is_none()
                    .then_some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)
            }
            Ok(()) if !request.member_id.is_empty() => Some(ErrorCode::UNKNOWN_MEMBER_ID),
            Ok(()) if self.groups.len() >= self.config.groups_max => {
                Some(ErrorCode::POLICY_VIOLATION)
            }
            Ok(()) => {
                self.join_new_group(caller, &request, out);
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = refusal {
            let reply = join_error(caller.version, request.member_id.clone(), error);
            out.reply(caller.token, reply);
        }
    }

    /// Makes a group of its first member. It is kept if the member came in or was given an id, and is stored before that is answered.
    fn join_new_group(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        out: &mut Commands<GroupReply>,
    ) {
        let mut group = ClassicGroup::new(&request.group_id, Some(caller.now.wall_ms));
        let mut context = Context {
            config: &self.config,
            timers: &mut self.timers,
            now: caller.now,
            out,
            member_bytes_free: self
                .config
                .members_bytes_max
                .saturating_sub(self.member_bytes),
        };
        group.join(caller, request, &mut context);
        if group.is_deserted() {
            return;
        }
        let is_stored = group.store_new(&mut context);
        debug_assert!(is_stored, "a group without members fits into any batch");
        self.member_bytes += group.bytes();
        self.groups
            .insert(group.id().clone(), Group::classic(group));
    }

    fn check_join(&self, caller: &Caller, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() || request.group_id.len() > NAME_BYTES_MAX {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let config = &self.config;
        let timeouts = config.min_session_timeout_ms..=config.max_session_timeout_ms;
        if !timeouts.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        let instance_id = request.group_instance_id.as_deref().unwrap_or_default();
        let names = [&caller.client_id, instance_id, &request.protocol_type];
        let mut names = names
            .into_iter()
            .chain(request.protocols.iter().map(|protocol| &*protocol.name));
        if request.protocols.len() > config.member_protocols_max
            || names.any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let protocols = request.protocols.iter();
        let bytes: usize = protocols
            .map(|protocol| protocol.name.len() + protocol.metadata.len())
            .sum();
        if bytes > config.member_bytes_max {
            return Err(ErrorCode::MESSAGE_TOO_LARGE);
        }
        // Who is in already stays in, as long as it does not grow.
        let group = self.groups.get(&request.group_id);
        let bytes_before = group.map_or(0, |group| group.bytes_of_member(&request.member_id));
        if self.member_bytes + bytes > config.members_bytes_max && bytes > bytes_before {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        Ok(())
    }

    /// Handles a SyncGroup, versions 0 to 5. Answered with the leader's, or at once.
    pub fn sync_group(
        &mut self,
        caller: &Caller,
        request: SyncGroupRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        if request.group_id.is_empty() {
            out.reply(caller.token, sync_error(ErrorCode::INVALID_GROUP_ID));
            return;
        }
        if let Some(synced) = self.sync_consumer_group(&request, topics, caller.now) {
            out.reply(caller.token, synced.unwrap_or_else(sync_error));
            return;
        }
        let handled = self.with_classic(&request.group_id, caller.now, out, |group, context| {
            group.sync(caller, &request, context);
        });
        if handled.is_none() {
            out.reply(caller.token, sync_error(ErrorCode::UNKNOWN_MEMBER_ID));
        }
    }

    /// Handles a Heartbeat, versions 0 to 4. Answered at once.
    pub fn heartbeat(
        &mut self,
        caller: &Caller,
        request: HeartbeatRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        let error_code = if request.group_id.is_empty() {
            ErrorCode::INVALID_GROUP_ID
        } else {
            let handled = self
                .heartbeat_consumer_group(&request, topics, caller.now, out)
                .or_else(|| {
                    self.with_classic(&request.group_id, caller.now, out, |group, context| {
                        group.heartbeat(
                            &request.member_id,
                            request.group_instance_id.as_ref(),
                            request.generation_id,
                            context,
                        )
                    })
                });
            match handled {
                Some(Ok(())) => ErrorCode::NONE,
                Some(Err(error)) => error,
                None => ErrorCode::UNKNOWN_MEMBER_ID,
            }
        };
        let reply = HeartbeatResponse {
            error_code,
            ..HeartbeatResponse::default()
        };
        out.reply(caller.token, reply);
    }

    /// Handles a LeaveGroup, versions 0 to 5. Answered at once.
    pub fn leave_group(
        &mut self,
        caller: &Caller,
        request: LeaveGroupRequest,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) {
        if request.group_id.is_empty() {
            let reply = LeaveGroupResponse {
                error_code: ErrorCode::INVALID_GROUP_ID,
                ..LeaveGroupResponse::default()
            };
            out.reply(caller.token, reply);
            return;
        }
        let is_of_several = caller.version >= FIRST_LEAVE_OF_SEVERAL;
        let leaving = if is_of_several {
            request.members
        } else {
            vec![MemberIdentity {
                member_id: request.member_id,
                ..MemberIdentity::default()
            }]
        };
        let members = self
            .leave_consumer_group(&request.group_id, &leaving, topics, caller.now, out)
            .or_else(|| {
                self.with_classic(&request.group_id, caller.now, out, |group, context| {
                    group.leave(&leaving, context)
                })
            })
            .unwrap_or_else(|| leaving.iter().map(unknown).collect());
        let reply = if is_of_several {
            LeaveGroupResponse {
                members,
                ..LeaveGroupResponse::default()
            }
        } else {
            LeaveGroupResponse {
                error_code: members
                    .first()
                    .map_or(ErrorCode::NONE, |member| member.error_code),
                ..LeaveGroupResponse::default()
            }
        };
        out.reply(caller.token, reply);
    }
}

fn unknown(member: &MemberIdentity) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: ErrorCode::UNKNOWN_MEMBER_ID,
    }
}
