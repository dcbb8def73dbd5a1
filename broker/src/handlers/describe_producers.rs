//! DescribeProducers (version 0): the producers a partition remembers, and their open transactions (KIP-664).

use std::rc::Rc;

use ringlog_net::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};
use ringlog_net::{ErrorCode, Uuid};

use super::RequestContext;
use super::asked::Asked;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::Shard;

/// Answers for each partition.
pub async fn handle(
    context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = context.shard.local_image();
    let mut response = DescribeProducersResponse::default();
    let mut items = Vec::new();
    let mut each = Asked::new(&context.shard.config);
    for (topic_at, asked) in request.topics.into_iter().enumerate() {
        let topic = topic_of(&image, &asked.name, Uuid::ZERO).and_then(|topic| {
            let allowed = context.authorize(Operation::Read, ResourceType::Topic, &topic.name);
            allowed
                .then_some(topic)
                .ok_or(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
        });
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for (at, partition_index) in asked.partition_indexes.into_iter().enumerate() {
            let located = topic.and_then(|topic| {
                let located = context.shard.locate(topic, partition_index);
                let located = located.map_err(|unlocated| unlocated.error)?;
                each.admit(topic.id, partition_index)?;
                Ok(located)
            });
            let mut answer = refused(partition_index, ErrorCode::KAFKA_STORAGE_ERROR);
            match located {
                Ok(located) => items.push((
                    located.shard,
                    (topic_at, at),
                    (located.topic_id, partition_index),
                )),
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
        response.topics.push(TopicResponse {
            name: asked.name,
            partitions,
        });
    }
    for ((topic, at), answer) in context.shard.on_owners(items, describe_all).await {
        response.topics[topic].partitions[at] = answer;
    }
    response
}

async fn describe_all(shard: Rc<Shard>, items: Vec<(Uuid, i32)>) -> Vec<PartitionResponse> {
    let describe = |(topic_id, partition_index)| match shard.log(topic_id, partition_index) {
        Some(log) => {
            let active_producers = log
                .producer_states()
                .into_iter()
                .map(|state| ProducerState {
                    producer_id: state.producer_id,
                    producer_epoch: i32::from(state.producer_epoch),
                    last_sequence: state.last_sequence,
                    last_timestamp: state.last_timestamp,
                    coordinator_epoch: state.coordinator_epoch,
                    current_txn_start_offset: state.current_transaction_start_offset,
                });
            PartitionResponse {
                partition_index,
                error_code: ErrorCode::NONE,
                active_producers: active_producers.collect(),
                ..Default::default()
            }
        }
        None => refused(partition_index, shard.missing_log()),
    };
    items.into_iter().map(describe).collect()
}

fn refused(partition_index: i32, error_code: ErrorCode) -> PartitionResponse {
    PartitionResponse {
        partition_index,
        error_code,
        ..Default::default()
    }
}
