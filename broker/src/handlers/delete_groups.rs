//! DeleteGroups (versions 0 to 2): removes groups without members, and their offsets (KIP-229).

use futures_util::future::join_all;
use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::{Named, may};
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut named = Named::default();
    let results = request.groups_names.into_iter().map(|group_id| {
        let admitted = named.admit(&group_id);
        async move {
            match admitted {
                Ok(()) => delete(context, group_id).await,
                Err(error) => refused(group_id, error),
            }
        }
    });
    DeleteGroupsResponse {
        results: join_all(results).await,
        ..DeleteGroupsResponse::default()
    }
}

async fn delete(context: &RequestContext, group_id: Str) -> DeletableGroupResult {
    if let Err(error) = may(context, Operation::Delete, &group_id) {
        return refused(group_id, error);
    }
    let asked = group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.delete_group(caller, asked, output);
    });
    match asked.await {
        Ok(GroupReply::DeletedGroup(result)) => result,
        Ok(_) => refused(group_id, ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(group_id, error),
    }
}

fn refused(group_id: Str, error_code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult {
        group_id,
        error_code,
    }
}
