//! JoinGroup (versions 0 to 9): a member enters the next generation of a classic group; the answer comes when the generation begins.

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::may_read;

/// From this version on an answer can say that there is no protocol; before, its name is empty.
const NO_PROTOCOL_FROM: i16 = 7;

/// See the module.
pub async fn handle(context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let (version, member_id) = (context.version, request.member_id.detached());
    let refused = |error_code| JoinGroupResponse {
        error_code,
        protocol_name: (version < NO_PROTOCOL_FROM).then(Str::default),
        member_id: member_id.clone(),
        ..JoinGroupResponse::default()
    };
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(error);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.join_group(caller, request, topics, output);
    });
    match asked.await {
        Ok(GroupReply::JoinGroup(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
