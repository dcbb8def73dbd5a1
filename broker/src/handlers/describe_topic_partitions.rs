//! DescribeTopicPartitions (75), version 0: topics and partitions page by page (KIP-966), in the order of names.

use std::collections::BTreeSet;

use ringlog_net::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::metadata::{live_endpoint, offline_replicas, topic_operations};
use crate::authorizer::{Operation, ResourceType};
use crate::controller::image::{Image, TopicImage, is_internal};
use crate::controller::names;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let asked: BTreeSet<Str> = request
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    let (from, first) = match &request.cursor {
        Some(cursor) => (
            cursor.topic_name.as_str(),
            usize::try_from(cursor.partition_index),
        ),
        None => ("", Ok(0)),
    };
    let Ok(first) = first else {
        let topics = asked
            .into_iter()
            .map(|name| missing(name, ErrorCode::INVALID_REQUEST))
            .collect();
        return DescribeTopicPartitionsResponse {
            topics,
            ..DescribeTopicPartitionsResponse::default()
        };
    };
    let limit = context
        .shard
        .config
        .number("max.request.partition.size.limit");
    let limit = limit
        .min(i64::from(request.response_partition_limit))
        .max(1) as usize;
    let image = context.shard.image();
    let mut page = Page {
        context,
        image: &image,
        first: (from, first),
        left: limit,
        response: Default::default(),
    };
    if request.topics.is_empty() {
        for topic in image.topics_from(from) {
            if page.may_describe(&topic.name) && !page.take(topic) {
                break;
            }
        }
    } else {
        for name in asked.into_iter().filter(|name| name.as_str() >= from) {
            if !page.take_named(name) {
                break;
            }
        }
    }
    page.response
}

/// An answer under construction.
struct Page<'a> {
    context: &'a RequestContext,
    image: &'a Image,
    /// Topic to begin with, and the partition to begin with in it.
    first: (&'a str, usize),
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    fn may_describe(&self, name: &str) -> bool {
        self.context
            .authorize(Operation::Describe, ResourceType::Topic, name)
    }

    /// Adds a topic by name; false when the page is full.
    fn take_named(&mut self, name: Str) -> bool {
        let error_code = match self.image.topic(&name) {
            _ if !self.may_describe(&name) => ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            Some(topic) => return self.take(topic),
            None if names::check(&name).is_err() => ErrorCode::INVALID_TOPIC_EXCEPTION,
            None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        };
        self.response.topics.push(missing(name, error_code));
        true
    }

    /// Adds as much of a topic as there is room for; false when the page is full.
    fn take(&mut self, topic: &TopicImage) -> bool {
        let first = if topic.name == *self.first.0 {
            self.first.1.min(topic.partitions.len())
        } else {
            0
        };
        let count = (topic.partitions.len() - first).min(self.left);
        if count > 0 || first == topic.partitions.len() {
            let topic = self.topic(topic, first, count);
            self.response.topics.push(topic);
        }
        self.left -= count;
        let next = first + count;
        if next == topic.partitions.len() {
            return true;
        }
        self.response.next_cursor = Some(Cursor {
            topic_name: topic.name.clone(),
            partition_index: next as i32,
        });
        false
    }

    fn topic(
        &self,
        topic: &TopicImage,
        first: usize,
        count: usize,
    ) -> DescribeTopicPartitionsResponseTopic {
        let partitions = (first..first + count)
            .map(|index| self.partition(topic, index))
            .collect();
        DescribeTopicPartitionsResponseTopic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.internal,
            partitions,
            topic_authorized_operations: topic_operations(self.context, &topic.name),
            ..DescribeTopicPartitionsResponseTopic::default()
        }
    }

    fn partition(
        &self,
        topic: &TopicImage,
        index: usize,
    ) -> DescribeTopicPartitionsResponsePartition {
        let partition = &topic.partitions[index];
        let listener = &self.context.connection.listener;
        let leader = self
            .image
            .broker(partition.leader)
            .filter(|broker| live_endpoint(broker, listener).is_some());
        DescribeTopicPartitionsResponsePartition {
            error_code: if leader.is_some() {
                ErrorCode::NONE
            } else {
                ErrorCode::LEADER_NOT_AVAILABLE
            },
            partition_index: index as i32,
            leader_id: leader.map_or(-1, |broker| broker.id),
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: partition.isr.clone(),
            eligible_leader_replicas: Some(partition.eligible_leader_replicas.clone()),
            last_known_elr: Some(partition.last_known_elr.clone()),
            offline_replicas: offline_replicas(self.image, partition, listener),
        }
    }
}

fn missing(name: Str, error_code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let is_internal = is_internal(&name);
    DescribeTopicPartitionsResponseTopic {
        error_code,
        name: Some(name),
        is_internal,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
