//! SyncGroup and Heartbeat of a member of a consumer group that speaks the classic protocol.

use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use ringlog_net::{Bytes, ErrorCode, Str};

use crate::command::Now;
use crate::groups::consumer::assignment::owns;
use crate::groups::consumer::config::ConsumerGroupConfig;
use crate::groups::consumer::embedded::write_assignment;
use crate::groups::consumer::group::ConsumerGroup;
use crate::groups::consumer::identity::check_instance;
use crate::groups::consumer::member::{Classic, Member, MemberState};
use crate::groups::consumer::timers::Timer;
use crate::groups::consumer::topics::TopicView;
use crate::groups::context::bytes_of;
use crate::record::Record;

impl ConsumerGroup {
    /// Handles a SyncGroup: the member is told what is its own.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub(in crate::groups) fn sync_classic(
        &mut self,
        request: &SyncGroupRequest,
        now: Now,
        topics: &dyn TopicView,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        let instance_id = request.group_instance_id.as_ref();
        let (member, classic) =
            self.classic_member(&request.member_id, instance_id, request.generation_id)?;
        let id = member.id.clone();
        let protocol = classic.protocols.first();
        let is_other = |said: &Option<Str>, known: &str| {
            said.as_ref().is_some_and(|said| *said.as_str() != *known)
        };
        if is_other(&request.protocol_type, Self::PROTOCOL_TYPE)
            || is_other(
                &request.protocol_name,
                protocol.map_or("", |(name, _)| name),
            )
        {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        // One that has to give something up was told so when it joined, and is told here what it keeps.
        if self.target_epoch > member.current.epoch && !member.must_revoke() {
            return Err(self.rejoin(&id, now));
        }
        let assigned = member.current.assigned.iter();
        let assigned = assigned.map(|(topic, owned)| (*topic, owned.keys().copied().collect()));
        let subscription = protocol.map_or_else(Bytes::new, |(_, metadata)| metadata.clone());
        let response = SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: write_assignment(assigned, &subscription, topics),
            ..SyncGroupResponse::default()
        };
        self.timers.cancel(&id, Timer::Sync);
        self.restart_classic_session(&id, now);
        Ok(response)
    }

    /// Handles a Heartbeat. A member joins again when there is a newer target, when it has to say that it gave up partitions, and when others have given up
    /// what it waits for.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    #[expect(clippy::too_many_arguments, reason = "what one heartbeat is about")]
    pub(in crate::groups) fn heartbeat_classic(
        &mut self,
        member_id: &str,
        instance_id: Option<&Str>,
        generation: i32,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> Result<(), ErrorCode> {
        let (member, _) = self.classic_member(member_id, instance_id, generation)?;
        let id = member.id.clone();
        self.restart_classic_session(&id, now);
        self.keep_up(now, config, topics, records);
        if self
            .members
            .get(&id)
            .is_some_and(|member| self.must_rejoin(member))
        {
            return Err(self.rejoin(&id, now));
        }
        Ok(())
    }

    fn must_rejoin(&self, member: &Member) -> bool {
        member.current.epoch < self.target_epoch
            || match member.current.state {
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !self.waits_for_others(member),
                MemberState::Stable | MemberState::Unknown => false,
            }
    }

    /// Whether others own partitions that are to be the member's.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target.get(&member.id).into_iter().flatten();
        target
            .flat_map(|(topic, partitions)| partitions.iter().map(move |number| (topic, *number)))
            .filter(|(topic, number)| !owns(&member.current.assigned, topic, *number))
            .any(|(topic, number)| self.owner(topic, number).is_some())
    }

    /// Tells a member to join again, for which it has its rebalance timeout from the first time on.
    fn rejoin(&mut self, id: &Str, now: Now) -> ErrorCode {
        let timeout_ms = self.members.get(id).map_or(0, Member::rebalance_timeout);
        let deadline_ms = now.monotonic_ms.saturating_add(timeout_ms);
        self.timers.set_if_absent(id, Timer::Join, deadline_ms);
        ErrorCode::REBALANCE_IN_PROGRESS
    }

    /// Makes a target that is due. Members of the consumer protocol do so with every heartbeat, but there may be none of them, when the group must not become
    /// classic again; Kafka waits for the next JoinGroup then.
    fn keep_up(
        &mut self,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) {
        let is_target_due = self.epoch > self.target_epoch && self.is_interval_over(now, config);
        if !self.metadata_stale && !is_target_due {
            return;
        }
        let before = self.clone();
        let mut made = Vec::new();
        self.refresh(false, topics, &mut made);
        self.update_target(now, config, topics, &mut made);
        if bytes_of(&made) > config.batch_bytes_max {
            *self = before;
            return;
        }
        records.append(&mut made);
    }

    /// The member that asks, if it is who it says, speaks the classic protocol and is in its generation.
    fn classic_member(
        &self,
        member_id: &str,
        instance_id: Option<&Str>,
        generation: i32,
    ) -> Result<(&Member, &Classic), ErrorCode> {
        let member = match instance_id {
            None => self.members.get(member_id),
            Some(instance_id) => {
                let holder = self.static_member(instance_id);
                let member = check_instance(holder, member_id, instance_id);
                Some(member.map_err(|refusal| refusal.code)?)
            }
        };
        let member = member.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        let classic = member.metadata.classic.as_ref();
        let classic = classic.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if member.current.epoch == generation {
            Ok((member, classic))
        } else {
            Err(ErrorCode::ILLEGAL_GENERATION)
        }
    }

    pub(super) fn restart_classic_session(&mut self, id: &Str, now: Now) {
        let member = self.members.get(id);
        if let Some(classic) = member.and_then(|member| member.metadata.classic.as_ref()) {
            let session_ms = u64::try_from(classic.session_timeout_ms).unwrap_or(0);
            let deadline_ms = now.monotonic_ms.saturating_add(session_ms);
            self.timers.set(id, Timer::Session, deadline_ms);
        }
    }
}
