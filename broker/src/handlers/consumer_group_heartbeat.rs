//! ConsumerGroupHeartbeat (versions 0 and 1): a member joins, stays in and leaves a group, says what it reads, and learns what it is to read (KIP-848).

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};

use super::RequestContext;
use super::groups::may_read;
use crate::authorizer::{Operation, ResourceType};

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let refused = |error_code| ConsumerGroupHeartbeatResponse {
        error_code,
        ..ConsumerGroupHeartbeatResponse::default()
    };
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(error);
    }
    let mut topics = request.subscribed_topic_names.iter().flatten();
    if !topics.all(|topic| context.authorize(Operation::Describe, ResourceType::Topic, topic)) {
        return refused(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let group_id = request.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.consumer_group_heartbeat(caller, &request, topics, output);
    });
    match asked.await {
        Ok(GroupReply::ConsumerGroupHeartbeat(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
