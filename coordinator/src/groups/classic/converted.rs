//! A classic group made of the members of a consumer group.

use ringlog_net::messages::join_group::JoinGroupResponse;
use ringlog_net::{ErrorCode, Str};

use super::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, Member, State, answer_removed};
use crate::groups::context::Context;
use crate::groups::stored;
use crate::{Caller, Now, Record};

impl ClassicGroup {
    /// A stable group of these members. None if they have no protocol in common.
    #[expect(clippy::vec_box, reason = "the group holds them boxed")]
    pub(crate) fn of_members(
        id: &Str,
        generation: i32,
        members: Vec<Box<Member>>,
        now: Now,
    ) -> Option<Self> {
        let mut group = Self::new(id, None);
        for member in members {
            group.add(member);
        }
        group.generation = generation;
        group.protocol_type = Some(Str::from_static(CONSUMER_PROTOCOL_TYPE));
        group.protocol_name = Some(group.select_protocol()?);
        group.enter(State::Stable, now);
        Some(group)
    }

    /// Lets the group have no leader: it is rebalanced when it is loaded.
    pub(crate) fn must_rebalance(&mut self) {
        self.leader = None;
    }

    pub(crate) fn lead_by(&mut self, member_id: &Str) {
        self.leader = Some(member_id.clone());
    }

    /// Lets a member's JoinGroup wait for the others.
    pub(crate) fn await_join(&mut self, member_id: &str, caller: &Caller) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.join = Some(caller.into());
            self.joined += 1;
        }
    }

    /// The group's record; none if it cannot be written.
    pub(crate) fn record(&self) -> Option<Record> {
        stored::group(&self.id, &self.to_value()).ok()
    }

    /// What a static member is told that comes in under a new id, while nothing changes for the others.
    pub(crate) fn replaced_reply(
        &self,
        member_id: &Str,
        leader_before: Str,
        version: i16,
    ) -> JoinGroupResponse {
        let mut reply = self.joined_reply(member_id.clone(), version);
        if version >= super::join::FIRST_WITH_SKIP_ASSIGNMENT {
            reply.skip_assignment = self.is_leader(member_id);
        } else {
            // It must not assign anew, so it must not learn that it leads.
            reply.leader = leader_before;
            reply.members = Vec::new();
        }
        reply
    }

    /// Tells everybody who waits to join again: the group becomes another.
    pub(crate) fn dissolve(&mut self, context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            let id = member.id.clone();
            answer_removed(member, id, ErrorCode::REBALANCE_IN_PROGRESS, context);
        }
        self.joined = 0;
    }
}
