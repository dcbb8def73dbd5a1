//! DescribeGroups (versions 0 to 6): state and members of classic groups.

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::{for_each_group, group_operations};
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = request.include_authorized_operations;
    let describe = async |group_id: Str| {
        let mut described = describe(context, group_id).await?;
        if operations && described.error_code.is_none() {
            described.authorized_operations = group_operations(context, &described.group_id);
        }
        Ok(described)
    };
    DescribeGroupsResponse {
        groups: for_each_group(context, Operation::Describe, request.groups, describe).await,
        ..DescribeGroupsResponse::default()
    }
}

async fn describe(context: &RequestContext, group_id: Str) -> Result<DescribedGroup, ErrorCode> {
    let asked = group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.describe_group(caller, asked, output);
    });
    match asked.await? {
        GroupReply::DescribedGroup(described) => Ok(described),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}
