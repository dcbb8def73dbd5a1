//! Metadata (3), versions 0 to 13: which topics there are, who leads their partitions, and where the brokers are reached.
//!
//! Answered from the shard's own image. A topic that is asked for by name and not there is made when client and broker both allow it; the
//! answer then waits for it, so that it can be used at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ringlog_net::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ringlog_net::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::image::{
    BrokerImage, Endpoint, Image, PartitionImage, TopicImage, is_internal,
};
use crate::controller::names;
use crate::metadata::decide;

/// Name of the one resource of type cluster.
pub(super) const CLUSTER: &str = "kafka-cluster";
/// The first version that takes topics by id.
const TOPIC_IDS_FROM: i16 = 12;
/// The first version that tells a missing listener from a missing leader.
const LISTENER_NOT_FOUND_FROM: i16 = 6;
/// How long the making of a topic is waited for, in ms.
const CREATION_TIMEOUT_MS: i32 = 30_000;
/// Why a topic could not be made that asking again will not change.
const FINAL: &[ErrorCode] = &[
    ErrorCode::INVALID_TOPIC_EXCEPTION,
    ErrorCode::INVALID_REPLICATION_FACTOR,
    ErrorCode::POLICY_VIOLATION,
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
];
/// What can be done to a topic (KIP-430).
const TOPIC_OPERATIONS: &[Operation] = &[
    Operation::Read,
    Operation::Write,
    Operation::Create,
    Operation::Delete,
    Operation::Alter,
    Operation::Describe,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
];
/// What can be done to the cluster.
const CLUSTER_OPERATIONS: &[Operation] = &[
    Operation::Create,
    Operation::Alter,
    Operation::Describe,
    Operation::ClusterAction,
    Operation::DescribeConfigs,
    Operation::AlterConfigs,
    Operation::IdempotentWrite,
];

/// What is asked for.
enum Wanted {
    All,
    Names(BTreeSet<Str>),
    Ids(BTreeSet<Uuid>),
}

/// See the module.
pub async fn handle(context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let mut created = HashMap::new();
    let wanted = wanted(context.version, request.topics.as_deref());
    if let Ok(Wanted::Names(names)) = &wanted
        && request.allow_auto_topic_creation
        && context.shard.config.auto_create_topics
    {
        created = create(context, names).await;
    }
    // Only now: it has what was just made.
    let image = context.shard.image();
    let view = View {
        context,
        image: &image,
        operations: request.include_topic_authorized_operations,
    };
    let topics = match wanted {
        Ok(Wanted::All) => image
            .topics()
            .filter(|topic| view.may_describe(&topic.name))
            .map(|topic| view.topic(topic))
            .collect(),
        Ok(Wanted::Names(names)) => names
            .into_iter()
            .map(|name| view.named(name, &created))
            .collect(),
        Ok(Wanted::Ids(ids)) => ids.into_iter().map(|id| view.by_id(id)).collect(),
        Err(topics) => topics,
    };
    let mut response = MetadataResponse {
        brokers: brokers(&image, &context.connection.listener),
        cluster_id: Some(Str::from(context.shard.cluster_id())),
        controller_id: context.shard.node_id(),
        topics,
        ..MetadataResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = cluster_operations(context);
    }
    response
}

/// What a request asks for; an error is the topics' part of the answer.
fn wanted(
    version: i16,
    topics: Option<&[MetadataRequestTopic]>,
) -> Result<Wanted, Vec<MetadataResponseTopic>> {
    let Some(topics) = topics else {
        return Ok(Wanted::All);
    };
    if topics.is_empty() && version == 0 {
        return Ok(Wanted::All);
    }
    let ids: BTreeSet<Uuid> = topics
        .iter()
        .map(|topic| topic.topic_id)
        .filter(|id| !id.is_zero())
        .collect();
    let names: BTreeSet<Str> = topics
        .iter()
        .filter_map(|topic| topic.name.clone())
        .collect();
    let unnamed = topics
        .iter()
        .any(|topic| topic.name.is_none() && topic.topic_id.is_zero());
    if unnamed || (!ids.is_empty() && (version < TOPIC_IDS_FROM || !names.is_empty())) {
        let refused = topics.iter().map(|topic| MetadataResponseTopic {
            error_code: ErrorCode::INVALID_REQUEST,
            name: Some(topic.name.clone().unwrap_or_default()),
            topic_id: topic.topic_id,
            ..MetadataResponseTopic::default()
        });
        return Err(refused.collect());
    }
    Ok(if ids.is_empty() {
        Wanted::Names(names)
    } else {
        Wanted::Ids(ids)
    })
}

/// Makes the topics that are not there and may be made; what became of them, by name.
async fn create(context: &RequestContext, names: &BTreeSet<Str>) -> HashMap<Str, ErrorCode> {
    let image = context.shard.image();
    let on_cluster = context.authorize(Operation::Create, ResourceType::Cluster, CLUSTER);
    let topics: Vec<CreatableTopic> = names
        .iter()
        .filter(|name| {
            image.topic(name).is_none() && names::check(name).is_ok() && !is_internal(name)
        })
        .filter(|name| context.authorize(Operation::Describe, ResourceType::Topic, name))
        .filter(|name| {
            on_cluster || context.authorize(Operation::Create, ResourceType::Topic, name)
        })
        .map(|name| CreatableTopic {
            name: name.clone(),
            num_partitions: -1,
            replication_factor: -1,
            ..CreatableTopic::default()
        })
        .collect();
    if topics.is_empty() {
        return HashMap::new();
    }
    let missing: Vec<Str> = topics.iter().map(|topic| topic.name.clone()).collect();
    let request = CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    };
    match decide(&context.shard, CREATION_TIMEOUT_MS, move |controller| {
        controller.create_topics(&request)
    })
    .await
    {
        Ok(response) => response
            .topics
            .into_iter()
            .map(|topic| (topic.name, topic.error_code))
            .collect(),
        Err(refusal) => {
            tracing::warn!(
                topics = missing.len(),
                reason = refusal.message,
                "topics could not be made on first use"
            );
            missing
                .into_iter()
                .map(|name| (name, refusal.code))
                .collect()
        }
    }
}

/// How topics look to one request.
struct View<'a> {
    context: &'a RequestContext,
    image: &'a Image,
    operations: bool,
}

impl View<'_> {
    fn may_describe(&self, name: &str) -> bool {
        self.context
            .authorize(Operation::Describe, ResourceType::Topic, name)
    }

    fn named(&self, name: Str, created: &HashMap<Str, ErrorCode>) -> MetadataResponseTopic {
        if !self.may_describe(&name) {
            return missing(
                Some(name),
                Uuid::ZERO,
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            );
        }
        if let Some(topic) = self.image.topic(&name) {
            return self.topic(topic);
        }
        let error_code = match created.get(&name) {
            _ if names::check(&name).is_err() => ErrorCode::INVALID_TOPIC_EXCEPTION,
            None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Some(&code) if FINAL.contains(&code) => code,
            // Gone again, or not there yet: the client asks again.
            Some(_) => ErrorCode::LEADER_NOT_AVAILABLE,
        };
        missing(Some(name), Uuid::ZERO, error_code)
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.image.topic_by_id(id) {
            Some(topic) if self.may_describe(&topic.name) => self.topic(topic),
            Some(_) => missing(None, id, ErrorCode::TOPIC_AUTHORIZATION_FAILED),
            None => missing(None, id, ErrorCode::UNKNOWN_TOPIC_ID),
        }
    }

    fn topic(&self, topic: &Arc<TopicImage>) -> MetadataResponseTopic {
        let partitions = (0..).zip(&topic.partitions);
        let mut response = MetadataResponseTopic {
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.internal,
            partitions: partitions
                .map(|(index, partition)| self.partition(index, partition))
                .collect(),
            ..MetadataResponseTopic::default()
        };
        if self.operations {
            response.topic_authorized_operations = topic_operations(self.context, &topic.name);
        }
        response
    }

    fn partition(
        &self,
        partition_index: i32,
        partition: &PartitionImage,
    ) -> MetadataResponsePartition {
        let listener = &self.context.connection.listener;
        let (error_code, leader_id) = leader(self.image, partition, listener, self.context.version);
        MetadataResponsePartition {
            error_code,
            partition_index,
            leader_id,
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: partition.isr.clone(),
            offline_replicas: offline_replicas(self.image, partition, listener),
        }
    }
}

fn leader(
    image: &Image,
    partition: &PartitionImage,
    listener: &str,
    version: i16,
) -> (ErrorCode, i32) {
    match image
        .broker(partition.leader)
        .filter(|broker| !broker.fenced)
    {
        Some(broker) if broker.endpoint(listener).is_some() => (ErrorCode::NONE, broker.id),
        Some(_) if version >= LISTENER_NOT_FOUND_FROM => (ErrorCode::LISTENER_NOT_FOUND, -1),
        _ => (ErrorCode::LEADER_NOT_AVAILABLE, -1),
    }
}

fn missing(name: Option<Str>, topic_id: Uuid, error_code: ErrorCode) -> MetadataResponseTopic {
    let is_internal = name.as_deref().is_some_and(is_internal);
    MetadataResponseTopic {
        error_code,
        name,
        topic_id,
        is_internal,
        ..MetadataResponseTopic::default()
    }
}

fn brokers(image: &Image, listener: &str) -> Vec<MetadataResponseBroker> {
    let reachable = image
        .brokers()
        .filter_map(|broker| Some((broker, live_endpoint(broker, listener)?)));
    reachable
        .map(|(broker, endpoint)| MetadataResponseBroker {
            node_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
        })
        .collect()
}

/// Where a broker that serves is reached by those who came in by `listener`.
pub(super) fn live_endpoint<'a>(broker: &'a BrokerImage, listener: &str) -> Option<&'a Endpoint> {
    if broker.fenced {
        None
    } else {
        broker.endpoint(listener)
    }
}

/// Replicas on brokers that do not serve, or not on this listener.
pub(super) fn offline_replicas(
    image: &Image,
    partition: &PartitionImage,
    listener: &str,
) -> Vec<i32> {
    let serves = |node: i32| {
        image
            .broker(node)
            .is_some_and(|broker| live_endpoint(broker, listener).is_some())
    };
    partition
        .replicas
        .iter()
        .copied()
        .filter(|node| !serves(*node))
        .collect()
}

/// What this request's principal may do to a topic, as a bit field (KIP-430).
pub(super) fn topic_operations(context: &RequestContext, name: &str) -> i32 {
    operations(context, ResourceType::Topic, name, TOPIC_OPERATIONS)
}

/// What this request's principal may do to the cluster, as a bit field.
pub(super) fn cluster_operations(context: &RequestContext) -> i32 {
    operations(context, ResourceType::Cluster, CLUSTER, CLUSTER_OPERATIONS)
}

/// What this request's principal may do to a resource, as a bit field (KIP-430).
pub(super) fn operations(
    context: &RequestContext,
    resource: ResourceType,
    name: &str,
    all: &[Operation],
) -> i32 {
    let allowed = all
        .iter()
        .filter(|operation| context.authorize(**operation, resource, name));
    allowed.fold(0, |bits, operation| bits | 1 << operation.code())
}

#[cfg(test)]
mod tests {
    //! What counts as "all topics", and which ways of naming topics are refused.
    use super::*;

    fn topic(name: Option<&str>, id: u8) -> MetadataRequestTopic {
        MetadataRequestTopic {
            name: name.map(Str::from),
            topic_id: Uuid([id; 16]),
        }
    }

    #[test]
    fn all_is_empty_in_version_0_and_null_after() {
        assert!(matches!(wanted(0, Some(&[])), Ok(Wanted::All)));
        assert!(matches!(wanted(1, Some(&[])), Ok(Wanted::Names(names)) if names.is_empty()));
        assert!(matches!(wanted(1, None), Ok(Wanted::All)));
    }

    #[test]
    fn ids_need_version_12_and_no_names_beside_them() {
        assert!(matches!(
            wanted(12, Some(&[topic(None, 1)])),
            Ok(Wanted::Ids(_))
        ));
        assert!(wanted(11, Some(&[topic(Some("a"), 1)])).is_err());
        assert!(wanted(12, Some(&[topic(Some("a"), 1)])).is_err());
        assert!(wanted(12, Some(&[topic(None, 0)])).is_err());
    }

    #[test]
    fn a_name_asked_for_twice_is_answered_once() {
        let asked = [
            topic(Some("a"), 0),
            topic(Some("b"), 0),
            topic(Some("a"), 0),
        ];
        assert!(matches!(wanted(9, Some(&asked)), Ok(Wanted::Names(names)) if names.len() == 2));
    }
}
