//! LeaveGroup: members go, or an administrator removes static ones by name (KIP-345).

use ringlog_net::messages::leave_group::{MemberIdentity, MemberResponse};
use ringlog_net::{ErrorCode, Str};

use super::{ClassicGroup, State};
use crate::groups::context::Context;

impl ClassicGroup {
    /// Removes members, and rebalances if any is gone. Says of each how it went.
    pub(crate) fn leave(
        &mut self,
        members: &[MemberIdentity],
        context: &mut Context<'_>,
    ) -> Vec<MemberResponse> {
        let mut replies = Vec::with_capacity(members.len());
        let mut is_any_gone = false;
        for member in members {
            let found = self.find_leaving(&member.member_id, member.group_instance_id.as_ref());
            if let Ok(id) = &found {
                self.remove(id, context);
                is_any_gone = true;
            }
            replies.push(MemberResponse {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                error_code: found.err().unwrap_or(ErrorCode::NONE),
            });
        }
        if is_any_gone {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(context),
                State::PreparingRebalance => self.complete_join_if_all_are_there(context),
                State::Empty => {}
            }
        }
        replies
    }

    /// The id of whoever is to go.
    fn find_leaving(&self, member_id: &Str, instance_id: Option<&Str>) -> Result<Str, ErrorCode> {
        if member_id.is_empty() {
            return instance_id
                .and_then(|instance_id| self.static_member(instance_id))
                .cloned()
                .ok_or(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if !self.pending.contains_key(member_id) {
            self.check_member(member_id, instance_id)?;
        }
        Ok(member_id.clone())
    }
}
