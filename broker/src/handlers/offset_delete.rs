//! OffsetDelete (version 0): forgets offsets of a group for topics that it is not subscribed to (KIP-496).

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::RequestContext;
use super::groups::may;
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let refused = |error_code| OffsetDeleteResponse {
        error_code,
        ..OffsetDeleteResponse::default()
    };
    if let Err(error) = may(context, Operation::Delete, &request.group_id) {
        return refused(error);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.offset_delete(caller, request, output);
    });
    match asked.await {
        Ok(GroupReply::OffsetDelete(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
