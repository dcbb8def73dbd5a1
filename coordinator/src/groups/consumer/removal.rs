//! Members that an administrator removes with LeaveGroup.

use ringlog_net::ErrorCode;
use ringlog_net::messages::leave_group::{MemberIdentity, MemberResponse};

use super::group::ConsumerGroup;
use super::heartbeat::check_instance;
use crate::record::Record;

impl ConsumerGroup {
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
