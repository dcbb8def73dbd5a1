//! Who a heartbeat comes from: members by their ids and epochs, static members by their names. Who is not what it says is refused.

use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::{ErrorCode, Str};

use super::assignment::claims_only;
use super::config::ConsumerGroupConfig;
use super::group::ConsumerGroup;
use super::member::{JOIN_EPOCH, LEAVE_STATIC_EPOCH, Member, MemberState};
use super::refusal::Refusal;
use crate::command::Caller;

/// Who a heartbeat comes from.
pub(super) struct Beating {
    pub(super) id: Str,
    /// The static member that this one takes the place of.
    pub(super) replaces: Option<Str>,
}

impl ConsumerGroup {
    /// Finds out who asks, and refuses who is not what it says.
    pub(super) fn identify(
        &self,
        caller: &Caller,
        request: &ConsumerGroupHeartbeatRequest,
        config: &ConsumerGroupConfig,
    ) -> Result<Beating, Refusal> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let id = if request.member_id.is_empty() {
            Str::from(caller.fresh_id.to_string())
        } else {
            request.member_id.detached()
        };
        let mut replaces = None;
        if let Some(instance_id) = &request.instance_id {
            let holder = self.static_member(instance_id);
            if joins {
                // Its own name does not keep a member out: the answer to its first join may have been lost.
                if let Some(holder) = holder.filter(|holder| holder.id != id || has_left(holder)) {
                    check_released(holder, &id, instance_id)?;
                    replaces = Some(holder.id.clone());
                }
            } else {
                check_instance(holder, &id, instance_id)?;
            }
        }
        match self.members.get(&id) {
            Some(member) if replaces.is_none() => {
                check_epoch(member, request)?;
                check_state(member, request)?;
            }
            None if !joins => return Err(self.unknown_member(&id)),
            None if replaces.is_none() => Refusal::unless(
                self.members.len() < config.members_max(),
                ErrorCode::GROUP_MAX_SIZE_REACHED,
                format!(
                    "The consumer group has reached its maximum capacity of {} members.",
                    config.members_max()
                ),
            )?,
            _ => {}
        }
        Ok(Beating { id, replaces })
    }

    pub(super) fn static_member(&self, instance_id: &Str) -> Option<&Member> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    pub(super) fn unknown_member(&self, id: &str) -> Refusal {
        let message = format!("Member {id} is not a member of group {}.", self.id);
        Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, message)
    }
}

pub(super) fn has_left(member: &Member) -> bool {
    member.current.epoch == LEAVE_STATIC_EPOCH
}

/// Whether a static member's name is free to be taken over.
fn check_released(holder: &Member, id: &str, instance_id: &str) -> Result<(), Refusal> {
    Refusal::unless(
        has_left(holder) || holder.is_classic(),
        ErrorCode::UNRELEASED_INSTANCE_ID,
        format!(
            "Static member {id} with instance id {instance_id} cannot join the group because the \
             instance id is owned by member {}.",
            holder.id
        ),
    )
}

/// The static member of a name, if it is who it says.
pub(super) fn check_instance<'a>(
    holder: Option<&'a Member>,
    id: &str,
    instance_id: &str,
) -> Result<&'a Member, Refusal> {
    let holder = holder.ok_or_else(|| {
        let message = format!("Instance id {instance_id} is unknown.");
        Refusal::new(ErrorCode::UNKNOWN_MEMBER_ID, message)
    })?;
    Refusal::unless(
        holder.id == *id,
        ErrorCode::FENCED_INSTANCE_ID,
        format!(
            "Static member {id} with instance id {instance_id} was fenced by member {}.",
            holder.id
        ),
    )?;
    Ok(holder)
}

/// Fences a member that is not in its epoch; one epoch behind it may be when it has not heard of the new one and owns nothing else.
fn check_epoch(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let (received, current) = (request.member_epoch, &member.current);
    let claimed = request.topic_partitions.as_deref();
    let missed_one = received == current.previous_epoch && claims_only(claimed, &current.assigned);
    let holds = received == JOIN_EPOCH
        || received == current.epoch
        || (received < current.epoch && missed_one);
    let than = if received > current.epoch {
        "greater"
    } else {
        "smaller"
    };
    Refusal::unless(
        holds,
        ErrorCode::FENCED_MEMBER_EPOCH,
        format!(
            "The consumer group member has a {than} member epoch ({received}) than the one known \
             by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            current.epoch
        ),
    )
}

/// A member in a state of a newer version must begin anew.
fn check_state(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let owns_nothing = request.topic_partitions.as_ref().is_some_and(Vec::is_empty);
    Refusal::unless(
        member.current.state != MemberState::Unknown || owns_nothing,
        ErrorCode::FENCED_MEMBER_EPOCH,
        "The consumer group member is in a unknown state. The member must abandon all its \
         partitions and rejoin.",
    )
}
