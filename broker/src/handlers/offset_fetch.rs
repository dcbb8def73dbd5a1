//! OffsetFetch (versions 1 to 10): how far groups have read. From version 8 on for several groups at once (KIP-709), from version 10 on with topic ids.

use futures_util::future::join_all;
use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use ringlog_net::{ErrorCode, Uuid};

use super::RequestContext;
use super::groups::{Named, may};
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::Image;

/// From this version on several groups are asked for at once.
const BATCHED_FROM: i16 = 8;
/// From this version on topics are named by id alone.
const TOPIC_IDS_FROM: i16 = 10;
/// From this version on null stands for all topics.
const ALL_TOPICS_FROM: i16 = 2;

/// See the module.
pub async fn handle(context: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    if context.version >= BATCHED_FROM {
        let mut named = Named::default();
        let groups = request.groups.into_iter().map(|group| {
            let admitted = named.admit(&group.group_id);
            async move {
                match admitted {
                    Ok(()) => fetch(context, group, require_stable).await,
                    Err(error) => refused(context, &group, error),
                }
            }
        });
        return OffsetFetchResponse {
            groups: join_all(groups).await,
            ..OffsetFetchResponse::default()
        };
    }
    let topics = match request.topics {
        None if context.version < ALL_TOPICS_FROM => Some(Vec::new()),
        topics => topics,
    };
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: topics.map(|topics| {
            let named = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
                name: topic.name,
                topic_id: Uuid::ZERO,
                partition_indexes: topic.partition_indexes,
            });
            named.collect()
        }),
        ..OffsetFetchRequestGroup::default()
    };
    single(fetch(context, group, require_stable).await)
}

/// The answer for one group in the form from before version 8.
fn single(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let error_code = group.error_code;
    let topics = group
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|partition| OffsetFetchResponsePartition {
                    partition_index: partition.partition_index,
                    committed_offset: partition.committed_offset,
                    committed_leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.metadata,
                    error_code: partition.error_code,
                })
                .collect(),
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code,
        ..OffsetFetchResponse::default()
    }
}

async fn fetch(
    context: &RequestContext,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    if let Err(error) = may(context, Operation::Describe, &group.group_id) {
        return refused(context, &group, error);
    }
    let whole = refused(context, &group, ErrorCode::UNKNOWN_SERVER_ERROR);
    let mut unknown = Vec::new();
    if let Some(topics) = &mut group.topics {
        // Even if none is left the coordinator is asked: whether it is here, and the member in its epoch, comes before that.
        topics.retain_mut(|topic| match resolve(context, topic) {
            Ok(()) => true,
            Err(error) => {
                unknown.push(without_offsets(topic, error));
                false
            }
        });
    }
    let all = group.topics.is_none();
    let group_id = group.group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.offset_fetch(caller, group, require_stable, topics, output);
    });
    let error_code = match asked.await {
        Ok(GroupReply::OffsetFetchGroup(mut answered)) if answered.error_code.is_none() => {
            if all {
                answered.topics.retain(|topic| {
                    context.authorize(Operation::Describe, ResourceType::Topic, &topic.name)
                });
            }
            if context.version >= TOPIC_IDS_FROM {
                name_by_id(context, &mut answered);
            } else {
                let named = answered.topics.iter_mut();
                named.for_each(|topic| topic.topic_id = Uuid::ZERO);
            }
            answered.topics.extend(unknown);
            return answered;
        }
        Ok(GroupReply::OffsetFetchGroup(answered)) => answered.error_code,
        Ok(_) => ErrorCode::UNKNOWN_SERVER_ERROR,
        Err(error) => told(error),
    };
    with_error(whole, error_code)
}

/// Puts an error in the place of another.
fn with_error(
    mut group: OffsetFetchResponseGroup,
    error_code: ErrorCode,
) -> OffsetFetchResponseGroup {
    group.error_code = error_code;
    for topic in &mut group.topics {
        for partition in &mut topic.partitions {
            partition.error_code = error_code;
        }
    }
    group
}

/// Gives a topic its name or its id, if it may be looked at.
fn resolve(
    context: &RequestContext,
    topic: &mut OffsetFetchRequestTopics,
) -> Result<(), ErrorCode> {
    if context.version >= TOPIC_IDS_FROM {
        if topic.topic_id.is_zero() {
            return Err(ErrorCode::UNKNOWN_TOPIC_ID);
        }
        let found = context.shard.with_image(|image| {
            topic_of(image, "", topic.topic_id).map(|found| found.name.clone())
        });
        topic.name = found?;
    } else {
        // What was committed for a topic that was deleted says nothing of a newer one of its name, even if a crash came before it was forgotten.
        let known = |image: &Image| image.topic(&topic.name).map(|found| found.id);
        topic.topic_id = context.shard.with_image(known).unwrap_or(Uuid::ZERO);
    }
    match context.authorize(Operation::Describe, ResourceType::Topic, &topic.name) {
        true => Ok(()),
        false => Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED),
    }
}

/// Replaces names by ids; offsets of topics that are gone have none and are left out.
fn name_by_id(context: &RequestContext, group: &mut OffsetFetchResponseGroup) {
    context.shard.with_image(|image| {
        group
            .topics
            .retain_mut(|topic| match image.topic(&topic.name) {
                Some(found) => {
                    topic.topic_id = found.id;
                    true
                }
                None => !topic.topic_id.is_zero(),
            });
    });
}

fn without_offsets(
    topic: &OffsetFetchRequestTopics,
    error_code: ErrorCode,
) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: topic.name.detached(),
        topic_id: topic.topic_id,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|index| OffsetFetchResponsePartitions {
                partition_index: *index,
                committed_offset: -1,
                committed_leader_epoch: -1,
                metadata: Some(Default::default()),
                error_code,
            })
            .collect(),
    }
}

/// A group's answer with an error and nothing else; before version 2, where only partitions can carry it, with those that were asked for.
fn refused(
    context: &RequestContext,
    group: &OffsetFetchRequestGroup,
    error_code: ErrorCode,
) -> OffsetFetchResponseGroup {
    let by_partition = context.version < ALL_TOPICS_FROM;
    let topics = group.topics.iter().flatten().filter(|_| by_partition);
    OffsetFetchResponseGroup {
        group_id: group.group_id.detached(),
        topics: topics
            .map(|topic| without_offsets(topic, error_code))
            .collect(),
        error_code,
    }
}

/// A coordinator's error in words that every consumer tries again on: those before Kafka 3.9 do not expect COORDINATOR_NOT_AVAILABLE here.
fn told(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::COORDINATOR_NOT_AVAILABLE => ErrorCode::NOT_COORDINATOR,
        other => other,
    }
}
