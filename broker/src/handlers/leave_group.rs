//! LeaveGroup (versions 0 to 5): members leave a group, or an administrator removes them (KIP-345).

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};

use super::RequestContext;
use super::groups::may_read;

/// See the module.
pub async fn handle(context: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let refused = |error_code| LeaveGroupResponse {
        error_code,
        ..LeaveGroupResponse::default()
    };
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(error);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.leave_group(caller, request, topics, output);
    });
    match asked.await {
        Ok(GroupReply::LeaveGroup(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
