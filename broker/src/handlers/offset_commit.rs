//! OffsetCommit (versions 2 to 10): stores how far a group has read; answered once that is on the medium.
//!
//! What names no topic or partition that there is, is answered here; the rest goes to the group's coordinator in one piece. Topics come by id from version 10 on.

use std::collections::HashMap;

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use super::groups::may_read;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};

/// From this version on topics are named by id alone.
const TOPIC_IDS_FROM: i16 = 10;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    if let Err(error) = may_read(context, &request.group_id) {
        return refused(&request.topics, error);
    }
    let topics = std::mem::take(&mut request.topics);
    let mut response = OffsetCommitResponse::default();
    // Where in the response each topic is that goes on to the coordinator.
    let mut places = HashMap::new();
    for (at, mut topic) in topics.into_iter().enumerate() {
        let mut answer = OffsetCommitResponseTopic {
            name: topic.name.detached(),
            topic_id: topic.topic_id,
            partitions: Vec::with_capacity(topic.partitions.len()),
        };
        match known(context, &topic) {
            Ok((name, topic_id, count)) => {
                topic.partitions.retain(|partition| {
                    let known = (0..count).contains(&partition.partition_index);
                    if !known {
                        answer.partitions.push(OffsetCommitResponsePartition {
                            partition_index: partition.partition_index,
                            error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                        });
                    }
                    known
                });
                topic.name = name;
                topic.topic_id = topic_id;
                if !topic.partitions.is_empty() {
                    places.entry(topic.name.clone()).or_insert(at);
                    request.topics.push(topic);
                }
            }
            Err(error) => {
                answer
                    .partitions
                    .extend(topic.partitions.iter().map(|partition| {
                        OffsetCommitResponsePartition {
                            partition_index: partition.partition_index,
                            error_code: error,
                        }
                    }))
            }
        }
        response.topics.push(answer);
    }
    if request.topics.is_empty() {
        return response;
    }
    // Where in the response each partition is that goes on, for the case that the coordinator does not answer.
    let sent: Vec<(usize, i32)> = (request.topics.iter())
        .flat_map(|topic| {
            let at = places.get(&topic.name).copied().unwrap_or_default();
            let partitions = topic.partitions.iter();
            partitions.map(move |partition| (at, partition.partition_index))
        })
        .collect();
    let group_id = request.group_id.clone();
    let asked = context.ask_group_briefly(&group_id, move |machine, caller, output| {
        machine.offset_commit(caller, request, output);
    });
    let error_code = match asked.await {
        Ok(GroupReply::OffsetCommit(answered)) => return merged(response, answered, &places),
        Ok(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        Err(error) => error,
    };
    for (at, partition_index) in sent {
        response.topics[at]
            .partitions
            .push(OffsetCommitResponsePartition {
                partition_index,
                error_code,
            });
    }
    response
}

/// What was answered here and by the coordinator.
fn merged(
    mut response: OffsetCommitResponse,
    answered: OffsetCommitResponse,
    places: &HashMap<Str, usize>,
) -> OffsetCommitResponse {
    response.throttle_time_ms = answered.throttle_time_ms;
    for topic in answered.topics {
        if let Some(at) = places.get(&topic.name) {
            response.topics[*at].partitions.extend(topic.partitions);
        }
    }
    response
}

/// A topic's name, id and number of partitions, if offsets of it may be committed.
fn known(
    context: &RequestContext,
    topic: &OffsetCommitRequestTopic,
) -> Result<(Str, Uuid, i32), ErrorCode> {
    let by_id = context.version >= TOPIC_IDS_FROM;
    if by_id && topic.topic_id.is_zero() {
        return Err(ErrorCode::UNKNOWN_TOPIC_ID);
    }
    let may_read = |name: &str| match context.authorize(Operation::Read, ResourceType::Topic, name)
    {
        true => Ok(()),
        false => Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED),
    };
    let id = if by_id { topic.topic_id } else { Uuid::ZERO };
    if !by_id {
        // First of all, lest somebody finds out which topics there are.
        may_read(&topic.name)?;
    }
    context.shard.with_image(|image| {
        let found = topic_of(image, &topic.name, id)?;
        may_read(&found.name)?;
        let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
        Ok((found.name.clone(), found.id, count))
    })
}

fn refused(topics: &[OffsetCommitRequestTopic], error_code: ErrorCode) -> OffsetCommitResponse {
    OffsetCommitResponse {
        topics: topics
            .iter()
            .map(|topic| OffsetCommitResponseTopic {
                name: topic.name.detached(),
                topic_id: topic.topic_id,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code,
                    })
                    .collect(),
            })
            .collect(),
        ..OffsetCommitResponse::default()
    }
}
