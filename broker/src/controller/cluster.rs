//! What concerns the cluster as a whole: brokers coming and going, feature levels, producer ids, and the elections of a start.

use std::ops::Range;

use ringlog_net::metadata::{BrokerEndpoint, BrokerFeature};
use ringlog_net::metadata::{
    BrokerRegistrationChangeRecord, FeatureLevelRecord, MetadataRecord, PartitionChangeRecord,
    ProducerIdsRecord, RegisterBrokerRecord,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::image::Endpoint;
use super::{Controller, Decision, Refusal};

/// A feature whose level the cluster agrees on (KIP-584). Clients act on it, so one stands here only once its APIs work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest level that this version works with.
    pub min: i16,
    /// The highest, which a new cluster starts with, and an older one gets with its first start that knows the feature.
    pub max: i16,
}

/// The features there are.
pub const FEATURES: &[Feature] = &[
    // The records written here are Kafka 4.3's (4.3-IV0); Kafka 4 still reads those of 3.3-IV3.
    Feature {
        name: "metadata.version",
        min: 7,
        max: 30,
    },
    // 1: groups whose coordinator assigns (KIP-848).
    Feature {
        name: "group.version",
        min: 0,
        max: 1,
    },
    // 2: a producer's epoch rises with each transaction, and Produce adds partitions (KIP-890).
    Feature {
        name: "transaction.version",
        min: 0,
        max: 2,
    },
];
/// Kafka's number of the plaintext protocol.
const PLAINTEXT: i16 = 0;
/// Elections in one batch.
const ELECTIONS_PER_BATCH: usize = 5_000;
/// Fields of BrokerRegistrationChangeRecord: leave alone, or clear.
const CLEAR: i8 = -1;

/// A broker that wants to serve.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its `node.id`.
    pub node_id: i32,
    /// Random per process.
    pub incarnation: Uuid,
    /// Where clients reach it.
    pub endpoints: Vec<Endpoint>,
    /// Its rack.
    pub rack: Option<Str>,
    /// Ids of its data directories.
    pub directories: Vec<Uuid>,
}

/// The feature levels that this version works with, as registrations tell them.
pub(super) fn supported_features() -> Vec<BrokerFeature> {
    let each = FEATURES.iter().map(|feature| BrokerFeature {
        name: Str::from_static(feature.name),
        min_supported_version: feature.min,
        max_supported_version: feature.max,
    });
    each.collect()
}

impl Controller {
    /// Feature levels that the log does not have yet: all of them in an empty one.
    pub fn bootstrap(&self) -> Vec<MetadataRecord> {
        let missing = FEATURES
            .iter()
            .filter(|feature| !self.image.finalized_features().contains_key(feature.name));
        missing
            .map(|feature| {
                MetadataRecord::FeatureLevel(FeatureLevelRecord {
                    name: Str::from_static(feature.name),
                    feature_level: feature.max,
                })
            })
            .collect()
    }

    /// Registers a broker, fenced as Kafka does, and unfences it in the same batch. Its epoch is the offset of the first of the records.
    pub fn register(&self, broker: &Registration) -> Vec<MetadataRecord> {
        let broker_epoch = self.image.offset + 1;
        let end_points = broker.endpoints.iter().map(|endpoint| BrokerEndpoint {
            name: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: PLAINTEXT,
        });
        vec![
            MetadataRecord::RegisterBroker(RegisterBrokerRecord {
                broker_id: broker.node_id,
                incarnation_id: broker.incarnation,
                broker_epoch,
                end_points: end_points.collect(),
                features: supported_features(),
                rack: broker.rack.clone(),
                fenced: true,
                log_dirs: broker.directories.clone(),
                ..RegisterBrokerRecord::default()
            }),
            MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
                broker_id: broker.node_id,
                broker_epoch,
                fenced: CLEAR,
                ..BrokerRegistrationChangeRecord::default()
            }),
        ]
    }

    /// Elects `node_id` anew in every partition it leads, so that what it gives out after a crash is told from what it gave out
    /// before. In batches of a bounded size.
    pub fn elect_anew(&self, node_id: i32) -> Vec<Vec<MetadataRecord>> {
        let led = self.image.topics().flat_map(|topic| {
            let partitions = (0..).zip(&topic.partitions);
            partitions
                .filter(move |(_, partition)| partition.leader == node_id)
                .map(|(index, _)| (topic.id, index))
        });
        let elections: Vec<MetadataRecord> = led
            .map(|(topic_id, partition_id)| {
                let change = PartitionChangeRecord {
                    partition_id,
                    topic_id,
                    leader: node_id,
                    ..Default::default()
                };
                MetadataRecord::PartitionChange(change)
            })
            .collect();
        elections
            .chunks(ELECTIONS_PER_BATCH)
            .map(<[_]>::to_vec)
            .collect()
    }

    /// Gives a broker a block of producer ids that nobody else was or will be given (KIP-730).
    ///
    /// # Errors
    /// A count that is not positive, a broker that is not registered, or no ids left.
    pub fn allocate_producer_ids(
        &self,
        node_id: i32,
        count: i32,
    ) -> Result<Decision<Range<i64>>, Refusal> {
        let broker = self.image.broker(node_id).ok_or_else(|| {
            Refusal::new(
                ErrorCode::BROKER_ID_NOT_REGISTERED,
                format!("broker {node_id} is not registered"),
            )
        })?;
        let first = self.image.next_producer_id();
        let next = (count > 0)
            .then(|| first.checked_add(i64::from(count)))
            .flatten()
            .ok_or_else(|| {
                Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    format!("{count} producer ids from {first} on cannot be given"),
                )
            })?;
        let record = ProducerIdsRecord {
            broker_id: node_id,
            broker_epoch: broker.epoch,
            next_producer_id: next,
        };
        Ok(Decision {
            records: vec![MetadataRecord::ProducerIds(record)],
            response: first..next,
        })
    }
}
