//! OffsetDelete (version 0): forgets offsets of a group for topics that it is not subscribed to (KIP-496).
//!
//! What names no topic or partition that there is, is answered here; the rest goes to the group's coordinator in one piece.

use std::collections::HashMap;

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::may;
use crate::authorizer::{Operation, ResourceType};

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let refused = |error_code| OffsetDeleteResponse {
        error_code,
        ..OffsetDeleteResponse::default()
    };
    if let Err(error) = may(context, Operation::Delete, &request.group_id) {
        return refused(error);
    }
    let mut problems: Vec<OffsetDeleteResponseTopic> = Vec::new();
    request.topics.retain_mut(|topic| {
        let found = take_problems(context, topic);
        problems.extend(found);
        !topic.partitions.is_empty()
    });
    let group_id = request.group_id.detached();
    let asked = context.ask_group(&group_id, move |machine, caller, output| {
        machine.offset_delete(caller, request, output);
    });
    match asked.await {
        Ok(GroupReply::OffsetDelete(mut response)) => {
            if response.error_code.is_none() {
                merge(&mut response.topics, problems);
            }
            response
        }
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}

/// Takes those partitions out of a topic whose offsets cannot be deleted, and says why.
fn take_problems(
    context: &RequestContext,
    topic: &mut OffsetDeleteRequestTopic,
) -> Option<OffsetDeleteResponseTopic> {
    let allowed = context.authorize(Operation::Read, ResourceType::Topic, &topic.name);
    let error_code = match allowed {
        true => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        false => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    };
    let name: Str = topic.name.detached();
    let mut partitions = Vec::new();
    context.shard.with_image(|image| {
        topic.partitions.retain(|partition| {
            let partition_index = partition.partition_index;
            let fine = allowed && image.has_partition(&name, partition_index);
            if !fine {
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index,
                    error_code,
                });
            }
            fine
        });
    });
    (!partitions.is_empty()).then_some(OffsetDeleteResponseTopic { name, partitions })
}

/// Puts partitions beside others of their topic: a response names each topic once.
fn merge(topics: &mut Vec<OffsetDeleteResponseTopic>, more: Vec<OffsetDeleteResponseTopic>) {
    let places = topics.iter().enumerate();
    let mut places: HashMap<Str, usize> =
        places.map(|(at, topic)| (topic.name.clone(), at)).collect();
    for topic in more {
        match places.get(&topic.name) {
            Some(at) => topics[*at].partitions.extend(topic.partitions),
            None => {
                places.insert(topic.name.clone(), topics.len());
                topics.push(topic);
            }
        }
    }
}
