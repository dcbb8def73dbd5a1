//! DeleteGroups (versions 0 to 2): removes groups without members, and their offsets (KIP-229).

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::for_each_group;
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let delete = async |group_id: Str| delete(context, group_id).await;
    DeleteGroupsResponse {
        results: for_each_group(context, Operation::Delete, request.groups_names, delete).await,
        ..DeleteGroupsResponse::default()
    }
}

async fn delete(
    context: &RequestContext,
    group_id: Str,
) -> Result<DeletableGroupResult, ErrorCode> {
    let asked = group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.delete_group(caller, asked, output);
    });
    match asked.await? {
        GroupReply::DeletedGroup(result) => Ok(result),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}
