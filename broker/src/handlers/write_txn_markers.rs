//! WriteTxnMarkers (versions 1 and 2): ends transactions in partitions, as their coordinator says. For coordinators on other brokers; one on this broker goes to the shards itself.
//!
//! One marker after the other, each with all its partitions at once.

use std::rc::Rc;

use ringlog_net::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use ringlog_net::{ErrorCode, Uuid};

use super::RequestContext;
use super::asked::Asked;
use super::partition::topic_of;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::Image;
use crate::shard::Shard;
use crate::shard::markers::MarkerItem;

/// Answers for each partition of each marker.
pub async fn handle(
    context: &RequestContext,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let may = |operation| context.authorize(operation, ResourceType::Cluster, "kafka-cluster");
    let allowed = may(Operation::Alter) || may(Operation::ClusterAction);
    let image = context.shard.local_image();
    let mut response = WriteTxnMarkersResponse::default();
    for marker in request.markers {
        response.markers.push(match allowed {
            true => write(context, &image, marker).await,
            false => refuse(marker),
        });
    }
    response
}

async fn write(
    context: &RequestContext,
    image: &Image,
    marker: WritableTxnMarker,
) -> WritableTxnMarkerResult {
    let mut result = WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        ..Default::default()
    };
    let mut items = Vec::new();
    let mut each = Asked::new(&context.shard.config);
    for (topic_at, asked) in marker.topics.into_iter().enumerate() {
        let topic = topic_of(image, &asked.name, Uuid::ZERO);
        let mut partitions = Vec::with_capacity(asked.partition_indexes.len());
        for (at, partition_index) in asked.partition_indexes.into_iter().enumerate() {
            let located = topic.and_then(|topic| {
                let located = context.shard.locate(topic, partition_index);
                let located = located.map_err(|unlocated| unlocated.error)?;
                each.admit(topic.id, partition_index)?;
                Ok(located)
            });
            let mut error_code = ErrorCode::KAFKA_STORAGE_ERROR;
            match located {
                Ok(located) => {
                    let item = MarkerItem {
                        topic_id: located.topic_id,
                        partition: partition_index,
                        leader_epoch: located.leader_epoch,
                        producer_id: marker.producer_id,
                        producer_epoch: marker.producer_epoch,
                        coordinator_epoch: marker.coordinator_epoch,
                        committed: marker.transaction_result,
                        transaction_version: marker.transaction_version,
                    };
                    items.push((located.shard, (topic_at, at), item));
                }
                Err(error) => error_code = error,
            }
            partitions.push(WritableTxnMarkerPartitionResult {
                partition_index,
                error_code,
            });
        }
        result.topics.push(WritableTxnMarkerTopicResult {
            name: asked.name,
            partitions,
        });
    }
    let write = |shard: Rc<Shard>, items| async move { shard.write_markers(items).await };
    for ((topic, at), error_code) in context.shard.on_owners(items, write).await {
        result.topics[topic].partitions[at].error_code = error_code;
    }
    result
}

fn refuse(marker: WritableTxnMarker) -> WritableTxnMarkerResult {
    let topics = marker
        .topics
        .into_iter()
        .map(|asked| WritableTxnMarkerTopicResult {
            name: asked.name,
            partitions: asked
                .partition_indexes
                .into_iter()
                .map(|partition_index| WritableTxnMarkerPartitionResult {
                    partition_index,
                    error_code: ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
                })
                .collect(),
        });
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: topics.collect(),
    }
}
