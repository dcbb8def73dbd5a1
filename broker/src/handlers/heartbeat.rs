//! Heartbeat (versions 0 to 4): a member of a classic group is alive, and learns whether a new generation is being formed.

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::RequestContext;
use super::groups::may_read;

/// See the module.
pub async fn handle(context: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let refused = |error_code| HeartbeatResponse {
        error_code,
        ..HeartbeatResponse::default()
    };
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(error);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.heartbeat(caller, request, topics, output);
    });
    match asked.await {
        Ok(GroupReply::Heartbeat(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        // A group that is just being loaded has lost nobody: the member goes on.
        Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => refused(ErrorCode::NONE),
        Err(error) => refused(error),
    }
}
