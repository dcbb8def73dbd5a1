//! SyncGroup (versions 0 to 5): the leader of a classic group hands out the assignment, every member receives its own.

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::RequestContext;
use super::groups::may_read;

/// See the module.
pub async fn handle(context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let refused = |error_code| SyncGroupResponse {
        error_code,
        ..SyncGroupResponse::default()
    };
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(error);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.sync_group(caller, request, topics, output);
    });
    match asked.await {
        Ok(GroupReply::SyncGroup(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
