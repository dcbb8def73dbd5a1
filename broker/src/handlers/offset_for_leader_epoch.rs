//! OffsetForLeaderEpoch (versions 2 to 4): where a leader epoch ends in our log, so that a client finds out whether what it
//! has was truncated (KIP-101, KIP-320).

use std::rc::Rc;

use ringlog_net::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use ringlog_net::{ErrorCode, Uuid};

use super::RequestContext;
use super::asked::Asked;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::Shard;
use crate::shard::read::check_epoch;

/// Answers for each partition.
pub async fn handle(
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = context.shard.local_image();
    let mut response = OffsetForLeaderEpochResponse::default();
    let mut items = Vec::new();
    let mut each = Asked::new(&context.shard.config);
    for (topic_at, asked) in request.topics.into_iter().enumerate() {
        let topic = topic_of(&image, &asked.topic, Uuid::ZERO).and_then(|topic| {
            let allowed = context.authorize(Operation::Describe, ResourceType::Topic, &topic.name);
            allowed
                .then_some(topic)
                .ok_or(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
        });
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (at, partition) in asked.partitions.into_iter().enumerate() {
            let located = topic.and_then(|topic| {
                let located = context.shard.locate(topic, partition.partition);
                let located = located.map_err(|unlocated| unlocated.error)?;
                each.admit(topic.id, partition.partition)?;
                Ok(located)
            });
            let mut answer = refused(partition.partition, ErrorCode::KAFKA_STORAGE_ERROR);
            match located {
                Ok(located) => {
                    items.push((located.shard, (topic_at, at), (located.topic_id, partition)))
                }
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
        response.topics.push(OffsetForLeaderTopicResult {
            topic: asked.topic,
            partitions,
        });
    }
    for ((topic, at), answer) in context.shard.on_owners(items, look_up_all).await {
        response.topics[topic].partitions[at] = answer;
    }
    response
}

async fn look_up_all(
    shard: Rc<Shard>,
    items: Vec<(Uuid, OffsetForLeaderPartition)>,
) -> Vec<EpochEndOffset> {
    let look_up = |(topic_id, asked): (Uuid, OffsetForLeaderPartition)| {
        let Some(log) = shard.log(topic_id, asked.partition) else {
            return refused(asked.partition, shard.missing_log());
        };
        if let Err(error) = check_epoch(&log, asked.current_leader_epoch) {
            return refused(asked.partition, error);
        }
        let (leader_epoch, end_offset) = log.end_offset_for_epoch(asked.leader_epoch);
        EpochEndOffset {
            error_code: ErrorCode::NONE,
            partition: asked.partition,
            leader_epoch,
            end_offset,
        }
    };
    items.into_iter().map(look_up).collect()
}

fn refused(partition: i32, error_code: ErrorCode) -> EpochEndOffset {
    EpochEndOffset {
        error_code,
        partition,
        ..Default::default()
    }
}
