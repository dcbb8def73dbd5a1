//! An image as the records that make it: what a snapshot of the metadata log holds.

use ringlog_net::metadata::{
    BrokerEndpoint, ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord,
    ProducerIdsRecord, RegisterBrokerRecord, TopicRecord,
};
use ringlog_net::{Str, Uuid};

use super::cluster::supported_features;
use super::configs::{BROKER, TOPIC};
use super::image::{BrokerImage, Image, Overrides, PartitionImage, TopicImage};

/// `broker_id` of a producer-id record that belongs to no broker in particular.
const NO_BROKER: i32 = -1;

impl Image {
    /// The records that make this image of an empty one, but for its offset and term; one at a time, so that a large image is never there twice.
    pub fn records(&self) -> impl Iterator<Item = MetadataRecord> + '_ {
        let features = self
            .finalized_features()
            .iter()
            .map(|(name, &feature_level)| {
                let name = name.clone();
                MetadataRecord::FeatureLevel(FeatureLevelRecord {
                    name,
                    feature_level,
                })
            });
        let brokers = self.brokers().map(broker);
        let topics = self.topics().flat_map(|topic| {
            let partitions = (0..).zip(&topic.partitions);
            let partitions =
                partitions.map(move |(index, state)| partition(topic.id, index, state));
            std::iter::once(topic_record(topic))
                .chain(overrides(
                    TOPIC,
                    topic.name.clone(),
                    self.topic_configs(&topic.name),
                ))
                .chain(partitions)
        });
        let broker_configs = self.broker_configs.iter().flat_map(|(node, values)| {
            let name = node.map(|node| node.to_string()).unwrap_or_default();
            overrides(BROKER, Str::from(name), values)
        });
        let producer_ids = (self.next_producer_id() > 0).then(|| {
            MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: NO_BROKER,
                next_producer_id: self.next_producer_id(),
                ..ProducerIdsRecord::default()
            })
        });
        features
            .chain(brokers)
            .chain(topics)
            .chain(broker_configs)
            .chain(producer_ids)
    }
}

fn broker(broker: &BrokerImage) -> MetadataRecord {
    let endpoints = broker.endpoints.iter().map(|endpoint| BrokerEndpoint {
        name: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: endpoint.port,
        ..BrokerEndpoint::default()
    });
    MetadataRecord::RegisterBroker(RegisterBrokerRecord {
        broker_id: broker.id,
        incarnation_id: broker.incarnation,
        broker_epoch: broker.epoch,
        end_points: endpoints.collect(),
        features: supported_features(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.directories.clone(),
        ..RegisterBrokerRecord::default()
    })
}

fn topic_record(topic: &TopicImage) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord {
        name: topic.name.clone(),
        topic_id: topic.id,
    })
}

fn partition(topic_id: Uuid, partition_id: i32, state: &PartitionImage) -> MetadataRecord {
    let unless_empty = |replicas: &Vec<i32>| (!replicas.is_empty()).then(|| replicas.clone());
    MetadataRecord::Partition(PartitionRecord {
        partition_id,
        topic_id,
        replicas: state.replicas.clone(),
        isr: state.isr.clone(),
        removing_replicas: state.removing_replicas.clone(),
        adding_replicas: state.adding_replicas.clone(),
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        directories: state.directories.clone(),
        eligible_leader_replicas: unless_empty(&state.eligible_leader_replicas),
        last_known_elr: unless_empty(&state.last_known_elr),
        ..PartitionRecord::default()
    })
}

fn overrides(
    resource_type: i8,
    resource_name: Str,
    values: &Overrides,
) -> impl Iterator<Item = MetadataRecord> + '_ {
    values.iter().map(move |(name, value)| {
        MetadataRecord::Config(ConfigRecord {
            resource_type,
            resource_name: resource_name.clone(),
            name: Str::from(name),
            value: Some(Str::from(value)),
        })
    })
}
