//! DescribeGroups (versions 0 to 6): state and members of classic groups.

use futures_util::future::join_all;
use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::{Named, group_operations, may};
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = request.include_authorized_operations;
    let mut named = Named::default();
    let groups = request.groups.into_iter().map(|group_id| {
        let admitted = named.admit(&group_id);
        async move {
            let mut described = match admitted {
                Ok(()) => describe(context, group_id).await,
                Err(error) => refused(group_id, error),
            };
            if operations && described.error_code.is_none() {
                described.authorized_operations = group_operations(context, &described.group_id);
            }
            described
        }
    });
    DescribeGroupsResponse {
        groups: join_all(groups).await,
        ..DescribeGroupsResponse::default()
    }
}

async fn describe(context: &RequestContext, group_id: Str) -> DescribedGroup {
    if let Err(error) = may(context, Operation::Describe, &group_id) {
        return refused(group_id, error);
    }
    let asked = group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.describe_group(caller, asked, output);
    });
    match asked.await {
        Ok(GroupReply::DescribedGroup(described)) => described,
        Ok(_) => refused(group_id, ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(group_id, error),
    }
}

fn refused(group_id: Str, error_code: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        error_code,
        group_id,
        ..DescribedGroup::default()
    }
}
