//! SyncGroup and Heartbeat: the leader's assignment is written down and handed out; members say that they live.

use ringlog_net::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};
use ringlog_net::{Bytes, ErrorCode, Str};

use super::{ClassicGroup, Member, State, restart_session, sync_error};
use crate::Caller;
use crate::groups::context::{Context, detached};

impl ClassicGroup {
    /// Handles a SyncGroup; it is answered now or with the leader's.
    pub(crate) fn sync(
        &mut self,
        caller: &Caller,
        request: &SyncGroupRequest,
        context: &mut Context<'_>,
    ) {
        if let Err(error) = self.check_sync(request) {
            context.out.reply(caller.token, sync_error(error));
            return;
        }
        match self.state {
            State::Empty => {
                let reply = sync_error(ErrorCode::UNKNOWN_MEMBER_ID);
                context.out.reply(caller.token, reply);
            }
            State::PreparingRebalance => {
                let reply = sync_error(ErrorCode::REBALANCE_IN_PROGRESS);
                context.out.reply(caller.token, reply);
            }
            State::CompletingRebalance => {
                self.note_sync(&request.member_id, context);
                self.park_sync(caller, &request.member_id, context);
                if self.is_leader(&request.member_id) {
                    self.assign(&request.assignments, context);
                }
            }
            State::Stable => {
                self.note_sync(&request.member_id, context);
                if let Some(member) = self.members.get(&request.member_id) {
                    let reply = self.assigned_reply(member);
                    context.out.reply(caller.token, reply);
                }
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        let differs = |said: &Option<Str>, known: &Option<Str>| matches!((said, known), (Some(said), Some(known)) if said != known);
        if self.state == State::Empty {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        Ok(())
    }

    /// A member has asked for its assignment.
    fn note_sync(&mut self, member_id: &str, context: &mut Context<'_>) {
        if let Some(member) = self.members.get_mut(member_id)
            && std::mem::take(&mut member.owes_sync)
        {
            self.owing_sync -= 1;
        }
        if self.owing_sync == 0 {
            context.timers.stop(&mut self.sync_timer);
        }
    }

    /// Parks a member's SyncGroup. One that was parked before is told to try again.
    fn park_sync(&mut self, caller: &Caller, member_id: &str, context: &mut Context<'_>) {
        let member = self.members.get_mut(member_id);
        if let Some(older) = member.and_then(|member| member.sync.replace(caller.into())) {
            let reply = sync_error(ErrorCode::REBALANCE_IN_PROGRESS);
            context.out.reply(older.token, reply);
        }
    }

    /// Takes the leader's assignment, and makes the generation stable.
    fn assign(&mut self, assignments: &[SyncGroupRequestAssignment], context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            self.bytes -= member.assignment.len();
            member.assignment = Bytes::new();
        }
        let bytes_before = self.bytes;
        for said in assignments {
            // Whoever is no member needs none. Of several for one member the last counts.
            if let Some(member) = self.members.get_mut(&said.member_id) {
                self.bytes -= member.assignment.len();
                member.assignment = detached(&said.assignment);
                self.bytes += member.assignment.len();
            }
        }
        let timestamp_before = self.state_timestamp_ms;
        self.enter(State::Stable, context.now);
        if self.bytes - bytes_before > context.member_bytes_free || !self.store(context) {
            // Larger than can be stored: nobody gets it, and the group tries again, perhaps with a leader that says less.
            self.state = State::CompletingRebalance;
            self.state_timestamp_ms = timestamp_before;
            self.reset_assignment(ErrorCode::UNKNOWN_SERVER_ERROR, context);
            self.prepare_rebalance(context);
            return;
        }
        self.answer_syncs(context);
    }

    /// Hands the assignment to all who wait for it.
    fn answer_syncs(&mut self, context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            if let Some(waiting) = member.sync.take() {
                let reply = SyncGroupResponse {
                    protocol_type: self.protocol_type.clone(),
                    protocol_name: self.protocol_name.clone(),
                    assignment: member.assignment.clone(),
                    ..SyncGroupResponse::default()
                };
                context.out.reply(waiting.token, reply);
                let timeout_ms = member.session_timeout_ms;
                restart_session(&self.id, member, timeout_ms, context);
            }
        }
    }

    fn assigned_reply(&self, member: &Member) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: member.assignment.clone(),
            ..SyncGroupResponse::default()
        }
    }

    /// Handles a Heartbeat.
    ///
    /// # Errors
    /// What the member is to do instead of going on.
    pub(crate) fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&Str>,
        generation: i32,
        context: &mut Context<'_>,
    ) -> Result<(), ErrorCode> {
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        self.restart_session(member_id, context);
        match self.state {
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            // Members may begin their heartbeats once they know the generation.
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}
