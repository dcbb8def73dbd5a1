//! ConsumerGroupDescribe (versions 0 and 1): state, members and assignments of consumer groups (KIP-848).

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::{for_each_group, group_operations};
use crate::authorizer::Operation;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = request.include_authorized_operations;
    let describe = async |group_id: Str| {
        let mut described = describe(context, group_id).await?;
        if operations && described.error_code.is_none() {
            described.authorized_operations = group_operations(context, &described.group_id);
        }
        Ok(described)
    };
    ConsumerGroupDescribeResponse {
        groups: for_each_group(context, Operation::Describe, request.group_ids, describe).await,
        ..ConsumerGroupDescribeResponse::default()
    }
}

async fn describe(context: &RequestContext, group_id: Str) -> Result<DescribedGroup, ErrorCode> {
    let asked = group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.consumer_group_describe(caller, asked, topics, output);
    });
    match asked.await? {
        GroupReply::DescribedConsumerGroup(described) => Ok(described),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}
