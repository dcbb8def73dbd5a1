//! ListOffsets (versions 1 to 11): the offset at a timestamp, or at one of the protocol's named places.
//!
//! -1 latest, -2 earliest, -3 the record with the largest timestamp (v7), -4 earliest local (v8), -5 latest tiered (v9), -6 earliest not yet
//! uploaded (v11). All data is local: -4 is the earliest and there is nothing tiered. With read_committed (v2) nothing from the last stable offset on is
//! there, and that is the latest.

use std::collections::HashSet;
use std::rc::Rc;

use ringlog_engine::log::TimestampOffset;
use ringlog_net::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use super::asked::Asked;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::read::{check_epoch, code_of_read_error};
use crate::shard::{Log, Shard};

/// `isolation_level` of a consumer that leaves out what is not committed.
const READ_COMMITTED: i8 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Answers for each partition.
pub async fn handle(context: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = context.shard.local_image();
    let mut response = ListOffsetsResponse::default();
    let mut items = Vec::new();
    let mut each = Asked::new(&context.shard.config);
    let repeated = repeated(&request);
    let committed = request.isolation_level == READ_COMMITTED;
    for (topic_at, asked) in request.topics.into_iter().enumerate() {
        let topic = topic_of(&image, &asked.name, Uuid::ZERO).and_then(|topic| {
            let allowed = context.authorize(Operation::Describe, ResourceType::Topic, &topic.name);
            allowed
                .then_some(topic)
                .ok_or(ErrorCode::TOPIC_AUTHORIZATION_FAILED)
        });
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for (at, partition) in asked.partitions.into_iter().enumerate() {
            let located = topic.and_then(|topic| {
                let index = partition.partition_index;
                // As Kafka: a partition that is named twice is answered neither time.
                if repeated.contains(&(asked.name.clone(), index)) {
                    return Err(ErrorCode::INVALID_REQUEST);
                }
                check_special(context.version, partition.timestamp)?;
                let located = context.shard.locate(topic, index);
                let located = located.map_err(|unlocated| unlocated.error)?;
                each.admit(topic.id, index)?;
                Ok(located)
            });
            let mut answer = refused(partition.partition_index, ErrorCode::KAFKA_STORAGE_ERROR);
            match located {
                Ok(located) => {
                    let item = (located.topic_id, partition, committed);
                    items.push((located.shard, (topic_at, at), item));
                }
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
        response.topics.push(ListOffsetsTopicResponse {
            name: asked.name,
            partitions,
        });
    }
    for ((topic, at), answer) in context.shard.on_owners(items, look_up_all).await {
        response.topics[topic].partitions[at] = answer;
    }
    response
}

/// The partitions that are named more than once.
fn repeated(request: &ListOffsetsRequest) -> HashSet<(Str, i32)> {
    let mut seen = HashSet::new();
    let named = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter();
        indexes.map(|partition| (topic.name.as_str(), partition.partition_index))
    });
    named
        .filter(|pair| !seen.insert(*pair))
        .map(|(name, index)| (Str::from(name), index))
        .collect()
}

/// Named places exist from some version on; before it the number means nothing.
fn check_special(version: i16, timestamp: i64) -> Result<(), ErrorCode> {
    let since = match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        other if other < EARLIEST_PENDING_UPLOAD => return Err(ErrorCode::UNSUPPORTED_VERSION),
        _ => 1,
    };
    (version >= since)
        .then_some(())
        .ok_or(ErrorCode::UNSUPPORTED_VERSION)
}

async fn look_up_all(
    shard: Rc<Shard>,
    items: Vec<(Uuid, ListOffsetsPartition, bool)>,
) -> Vec<ListOffsetsPartitionResponse> {
    let mut answers = Vec::with_capacity(items.len());
    for (topic_id, asked, committed) in items {
        let index = asked.partition_index;
        let found = match shard.log(topic_id, index) {
            Some(log) => shard.measured(look_up(&log, &asked, committed)).await,
            None => Err(shard.missing_log()),
        };
        answers.push(match found {
            Ok(found) => ListOffsetsPartitionResponse {
                partition_index: index,
                error_code: ErrorCode::NONE,
                timestamp: found.timestamp,
                offset: found.offset,
                leader_epoch: found.leader_epoch,
            },
            Err(error) => refused(index, error),
        });
    }
    answers
}

async fn look_up(
    log: &Log,
    asked: &ListOffsetsPartition,
    committed: bool,
) -> Result<TimestampOffset, ErrorCode> {
    check_epoch(log, asked.current_leader_epoch)?;
    let place = |offset, leader_epoch| {
        Ok(TimestampOffset {
            timestamp: -1,
            offset,
            leader_epoch,
        })
    };
    let nowhere = TimestampOffset {
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    };
    let end = match committed {
        true => log.last_stable_offset(),
        false => log.high_watermark(),
    };
    // By time only what may be read is found.
    let visible = |found: Option<TimestampOffset>| {
        found.filter(|found| found.offset < end).unwrap_or(nowhere)
    };
    match asked.timestamp {
        LATEST => place(end, log.leader_epoch()),
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.log_start_offset();
            place(start, log.epoch_for_offset(start).unwrap_or(-1))
        }
        // Nothing is uploaded anywhere: what waits for upload starts at the log's start only where tiering is on.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(nowhere),
        MAX_TIMESTAMP => {
            let found = log.max_timestamp_offset().await;
            Ok(visible(found.map_err(|error| code_of_read_error(&error))?))
        }
        timestamp => {
            let found = log.offset_for_timestamp(timestamp).await;
            Ok(visible(found.map_err(|error| code_of_read_error(&error))?))
        }
    }
}

fn refused(partition_index: i32, error_code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code,
        ..Default::default()
    }
}
