//! DeleteRecords (versions 0 to 2): moves a partition's log start offset forward, durably before it is answered.

use std::rc::Rc;

use ringlog_net::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use ringlog_net::{ErrorCode, Uuid};

use super::RequestContext;
use super::asked::Asked;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::config;
use crate::shard::Shard;
use crate::shard::read::code_of_read_error;

/// The offset that stands for the high watermark.
const UP_TO_HIGH_WATERMARK: i64 = -1;

/// Answers for each partition with its new log start.
pub async fn handle(
    context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = context.shard.local_image();
    let mut response = DeleteRecordsResponse::default();
    let mut items = Vec::new();
    let mut each = Asked::new(&context.shard.config);
    for (topic_at, asked) in request.topics.into_iter().enumerate() {
        let topic = topic_of(&image, &asked.name, Uuid::ZERO).and_then(|topic| {
            if !context.authorize(Operation::Delete, ResourceType::Topic, &topic.name) {
                return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
            }
            // Whatever its policy, it is what a coordinator is loaded from.
            if topic.internal {
                return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
            }
            // Records of a compacted topic go by key, never by offset alone.
            let policy = config::topic::effective(
                "cleanup.policy",
                &context.shard.config,
                &image,
                &topic.name,
            )
            .value;
            let deletes = config::split_list(&policy).any(|item| item == "delete");
            deletes.then_some(topic).ok_or(ErrorCode::POLICY_VIOLATION)
        });
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (at, partition) in asked.partitions.into_iter().enumerate() {
            let index = partition.partition_index;
            let located = topic.and_then(|topic| {
                let located = context.shard.locate(topic, index);
                let located = located.map_err(|unlocated| unlocated.error)?;
                each.admit(topic.id, index)?;
                Ok(located)
            });
            let mut answer = refused(index, ErrorCode::KAFKA_STORAGE_ERROR);
            match located {
                Ok(located) => {
                    items.push((
                        located.shard,
                        (topic_at, at),
                        (located.topic_id, index, partition.offset),
                    ));
                }
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
        response.topics.push(DeleteRecordsTopicResult {
            name: asked.name,
            partitions,
        });
    }
    for ((topic, at), answer) in context.shard.on_owners(items, delete_all).await {
        response.topics[topic].partitions[at] = answer;
    }
    response
}

async fn delete_all(
    shard: Rc<Shard>,
    items: Vec<(Uuid, i32, i64)>,
) -> Vec<DeleteRecordsPartitionResult> {
    let mut answers = Vec::with_capacity(items.len());
    for (topic_id, partition_index, offset) in items {
        answers.push(
            match delete(&shard, topic_id, partition_index, offset).await {
                Ok(low_watermark) => DeleteRecordsPartitionResult {
                    partition_index,
                    low_watermark,
                    error_code: ErrorCode::NONE,
                },
                Err(error) => refused(partition_index, error),
            },
        );
    }
    answers
}

async fn delete(
    shard: &Shard,
    topic_id: Uuid,
    partition: i32,
    offset: i64,
) -> Result<i64, ErrorCode> {
    let log = shard
        .log(topic_id, partition)
        .ok_or_else(|| shard.missing_log())?;
    let offset = if offset == UP_TO_HIGH_WATERMARK {
        log.high_watermark()
    } else {
        offset
    };
    if offset < 0 || offset > log.high_watermark() {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    log.delete_records_before(offset).await.map_err(|error| {
        tracing::warn!(log = %log.topic_partition(), %error, "records could not be deleted");
        code_of_read_error(&error)
    })?;
    Ok(log.log_start_offset())
}

fn refused(partition_index: i32, error_code: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: -1,
        error_code,
    }
}
