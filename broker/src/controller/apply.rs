//! Folds records of the metadata log into images, and says what changed.
//!
//! The one place where a record's meaning is written. Live proposals, committed batches and replay all come through here, so they cannot
//! disagree. A record that cannot be applied is an error, never skipped: acting on half of a log would be worse than not starting.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ringlog_net::metadata::{
    BrokerRegistrationChangeRecord, ConfigRecord, FeatureLevelRecord, MetadataRecord,
    PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord,
};
use ringlog_net::{Str, Uuid};

use super::image::{BrokerImage, Endpoint, Image, Overrides, PartitionImage, TopicImage};
use super::names::metric_form;

/// `leader` of a PartitionChangeRecord that elects nobody new.
const LEADER_UNCHANGED: i32 = -2;
/// Resource types of ConfigRecords.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What an image has that the one before it had not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New partitions, of new or grown topics.
    pub created: Vec<(Uuid, Range<i32>)>,
    /// Topics that are gone: id, name, number of partitions.
    pub deleted: Vec<(Uuid, Str, i32)>,
    /// Topics, not new ones, whose configuration changed.
    pub configs_changed: Vec<Uuid>,
    /// Whether a broker's or all brokers' configuration changed.
    pub broker_configs_changed: bool,
    /// Older partitions whose leader, leader epoch or replicas changed.
    pub partitions_changed: Vec<(Uuid, i32)>,
    /// Whether a registration changed.
    pub brokers_changed: bool,
    /// Whether a feature level changed.
    pub features_changed: bool,
}

/// A record that contradicts what came before it, or that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It speaks of a topic that is not there.
    #[error("offset {offset}: there is no topic {topic}")]
    UnknownTopic {
        /// The record's offset.
        offset: i64,
        /// The topic's id.
        topic: Uuid,
    },
    /// It configures a topic that is not there.
    #[error("offset {offset}: there is no topic `{name}` to configure")]
    UnknownTopicName {
        /// The record's offset.
        offset: i64,
        /// The topic's name.
        name: Str,
    },
    /// It makes a topic that is there already.
    #[error("offset {offset}: topic {name} exists already")]
    TopicExists {
        /// The record's offset.
        offset: i64,
        /// The topic's name.
        name: Str,
    },
    /// It speaks of a partition that is not there, or makes one out of order.
    #[error(
        "offset {offset}: topic {topic} has {count} partitions, so partition {partition} is out of place"
    )]
    PartitionOutOfPlace {
        /// The record's offset.
        offset: i64,
        /// The topic's id.
        topic: Uuid,
        /// The partition the record names.
        partition: i32,
        /// Partitions the topic has.
        count: usize,
    },
    /// It speaks of a broker that is not registered, or of another registration.
    #[error("offset {offset}: broker {broker} is not registered with epoch {epoch}")]
    UnknownBroker {
        /// The record's offset.
        offset: i64,
        /// The broker.
        broker: i32,
        /// The epoch the record names.
        epoch: i64,
    },
    /// It configures a kind of resource that is not known.
    #[error(
        "offset {offset}: configuration of resource type {resource_type}, name `{name}`, is not known to this version"
    )]
    UnknownResource {
        /// The record's offset.
        offset: i64,
        /// Kafka's number of the type.
        resource_type: i8,
        /// The resource's name.
        name: Str,
    },
    /// It is of a kind that this version never writes.
    #[error(
        "offset {offset}: this version does not know what to do with {record}; start the version that wrote it"
    )]
    Unsupported {
        /// The record's offset.
        offset: i64,
        /// The record, as far as a line should hold.
        record: String,
    },
}

/// An image under construction.
pub struct ImageBuilder {
    image: Image,
    created: BTreeMap<Uuid, Range<i32>>,
    deleted: BTreeMap<Uuid, (Str, i32)>,
    configs_changed: BTreeSet<Str>,
    partitions_changed: BTreeSet<(Uuid, i32)>,
    broker_configs_changed: bool,
    brokers_changed: bool,
    features_changed: bool,
}

impl ImageBuilder {
    /// Starts from an image; a cheap copy.
    pub fn new(image: &Image) -> Self {
        Self {
            image: image.clone(),
            created: BTreeMap::new(),
            deleted: BTreeMap::new(),
            configs_changed: BTreeSet::new(),
            partitions_changed: BTreeSet::new(),
            broker_configs_changed: false,
            brokers_changed: false,
            features_changed: false,
        }
    }

    /// Takes in a batch whose first record has offset `base_offset`.
    ///
    /// # Errors
    /// The first record that does not fit; the builder is then of no use any more.
    pub fn batch(
        &mut self,
        base_offset: i64,
        epoch: i32,
        records: &[MetadataRecord],
    ) -> Result<(), ApplyError> {
        for (offset, record) in (base_offset..).zip(records) {
            self.record(offset, record)?;
            self.image.offset = offset;
        }
        self.image.epoch = epoch;
        Ok(())
    }

    /// The image so far.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Notes that the log goes on to `offset` in term `epoch` with something that does not concern the image.
    pub fn skip_to(&mut self, offset: i64, epoch: i32) {
        self.image.offset = offset;
        self.image.epoch = epoch;
    }

    /// The image and what it has that the one at the start had not.
    pub fn finish(self) -> (Image, Delta) {
        let Self {
            image,
            created,
            deleted,
            configs_changed,
            partitions_changed,
            ..
        } = self;
        let configs_changed = configs_changed
            .iter()
            .filter_map(|name| image.topic(name))
            .map(|topic| topic.id)
            .filter(|id| created.get(id).is_none_or(|range| range.start > 0))
            .collect();
        let partitions_changed = partitions_changed
            .into_iter()
            .filter(|(id, partition)| {
                !created
                    .get(id)
                    .is_some_and(|range| range.contains(partition))
            })
            .collect();
        let delta = Delta {
            created: created
                .into_iter()
                .filter(|(_, range)| !range.is_empty())
                .collect(),
            deleted: deleted
                .into_iter()
                .map(|(id, (name, count))| (id, name, count))
                .collect(),
            configs_changed,
            broker_configs_changed: self.broker_configs_changed,
            partitions_changed,
            brokers_changed: self.brokers_changed,
            features_changed: self.features_changed,
        };
        (image, delta)
    }

    fn record(&mut self, offset: i64, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::Topic(record) => self.topic(offset, record),
            MetadataRecord::Partition(record) => self.partition(offset, record),
            MetadataRecord::PartitionChange(record) => self.partition_change(offset, record),
            MetadataRecord::RemoveTopic(record) => self.remove_topic(offset, record.topic_id),
            MetadataRecord::Config(record) => self.config(offset, record),
            MetadataRecord::RegisterBroker(record) => {
                self.register_broker(record);
                Ok(())
            }
            MetadataRecord::BrokerRegistrationChange(record) => {
                self.change_registration(offset, record)
            }
            MetadataRecord::UnregisterBroker(record) => {
                let (broker, epoch) = (record.broker_id, record.broker_epoch);
                self.registered(offset, broker, epoch)?;
                self.image.brokers.remove(&broker);
                Ok(())
            }
            MetadataRecord::FeatureLevel(record) => {
                self.feature_level(record);
                Ok(())
            }
            MetadataRecord::ProducerIds(record) => {
                self.image.next_producer_id =
                    self.image.next_producer_id.max(record.next_producer_id);
                Ok(())
            }
            MetadataRecord::NoOp(_) => Ok(()),
            other => {
                let record = format!("{other:?}").chars().take(100).collect();
                Err(ApplyError::Unsupported { offset, record })
            }
        }
    }

    fn topic(&mut self, offset: i64, record: &TopicRecord) -> Result<(), ApplyError> {
        // The name outlives the request or log page it was read from.
        let name = record.name.detached();
        if self.image.names.contains_key(&name) || self.image.topics.contains_key(&record.topic_id)
        {
            return Err(ApplyError::TopicExists { offset, name });
        }
        self.image.names.insert(name.clone(), record.topic_id);
        if name.contains(['.', '_']) {
            let alike = self
                .image
                .metric_names
                .entry(Str::from(metric_form(&name)))
                .or_default();
            Arc::make_mut(alike).push(name.clone());
        }
        self.image.topics.insert(
            record.topic_id,
            Arc::new(TopicImage::new(name, record.topic_id)),
        );
        self.created.insert(record.topic_id, 0..0);
        Ok(())
    }

    fn topic_mut(&mut self, offset: i64, topic: Uuid) -> Result<&mut TopicImage, ApplyError> {
        let found = self.image.topics.get_mut(&topic);
        found
            .map(Arc::make_mut)
            .ok_or(ApplyError::UnknownTopic { offset, topic })
    }

    fn partition(&mut self, offset: i64, record: &PartitionRecord) -> Result<(), ApplyError> {
        let (id, partition) = (record.topic_id, record.partition_id);
        let topic = self.topic_mut(offset, id)?;
        let count = topic.partitions.len();
        if usize::try_from(partition) != Ok(count) {
            return Err(ApplyError::PartitionOutOfPlace {
                offset,
                topic: id,
                partition,
                count,
            });
        }
        topic.partitions.push(PartitionImage {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            directories: record.directories.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
        });
        self.image.partition_count += 1;
        self.created.entry(id).or_insert(partition..partition).end = partition + 1;
        Ok(())
    }

    fn partition_change(
        &mut self,
        offset: i64,
        record: &PartitionChangeRecord,
    ) -> Result<(), ApplyError> {
        let (id, number) = (record.topic_id, record.partition_id);
        let topic = self.topic_mut(offset, id)?;
        let count = topic.partitions.len();
        let partition = usize::try_from(number)
            .ok()
            .and_then(|index| topic.partitions.get_mut(index));
        let Some(partition) = partition else {
            return Err(ApplyError::PartitionOutOfPlace {
                offset,
                topic: id,
                partition: number,
                count,
            });
        };
        let replace = |field: &mut Vec<i32>, change: &Option<Vec<i32>>| {
            if let Some(change) = change {
                field.clone_from(change);
            }
        };
        replace(&mut partition.isr, &record.isr);
        replace(&mut partition.replicas, &record.replicas);
        replace(&mut partition.removing_replicas, &record.removing_replicas);
        replace(&mut partition.adding_replicas, &record.adding_replicas);
        replace(
            &mut partition.eligible_leader_replicas,
            &record.eligible_leader_replicas,
        );
        replace(&mut partition.last_known_elr, &record.last_known_elr);
        if let Some(directories) = &record.directories {
            partition.directories.clone_from(directories);
        }
        if record.leader != LEADER_UNCHANGED {
            partition.leader = record.leader;
            partition.leader_epoch += 1;
        }
        partition.partition_epoch += 1;
        self.partitions_changed.insert((id, number));
        Ok(())
    }

    fn remove_topic(&mut self, offset: i64, id: Uuid) -> Result<(), ApplyError> {
        let topic = self
            .image
            .topics
            .remove(&id)
            .ok_or(ApplyError::UnknownTopic { offset, topic: id })?;
        self.image.names.remove(&topic.name);
        self.forget_metric_name(&topic.name);
        self.image.topic_configs.remove(&topic.name);
        let count = topic.partitions.len();
        self.image.partition_count -= count;
        self.partitions_changed
            .retain(|(changed, _)| *changed != id);
        // Of a topic that came and went nobody need hear; of a grown one only what was there before counts.
        let before = self
            .created
            .remove(&id)
            .map_or(count as i32, |range| range.start);
        if before > 0 {
            self.deleted.insert(id, (topic.name.clone(), before));
        }
        Ok(())
    }

    fn forget_metric_name(&mut self, name: &Str) {
        let form = Str::from(metric_form(name));
        let Some(alike) = self.image.metric_names.get_mut(&form).map(Arc::make_mut) else {
            return;
        };
        alike.retain(|other| other != name);
        if alike.is_empty() {
            self.image.metric_names.remove(&form);
        }
    }

    fn config(&mut self, offset: i64, record: &ConfigRecord) -> Result<(), ApplyError> {
        let unknown = || ApplyError::UnknownResource {
            offset,
            resource_type: record.resource_type,
            name: record.resource_name.detached(),
        };
        match record.resource_type {
            TOPIC => {
                let topic = record.resource_name.detached();
                // A snapshot holds the settings of topics, so what is set on none would be lost with the log before it.
                if !self.image.names.contains_key(&topic) {
                    return Err(ApplyError::UnknownTopicName {
                        offset,
                        name: topic,
                    });
                }
                let overrides = self.image.topic_configs.entry(topic.clone()).or_default();
                if set(Arc::make_mut(overrides), record) {
                    self.image.topic_configs.remove(&topic);
                }
                self.configs_changed.insert(topic);
            }
            BROKER => {
                let node = match record.resource_name.as_str() {
                    "" => None,
                    name => Some(name.parse().map_err(|_| unknown())?),
                };
                let overrides = self.image.broker_configs.entry(node).or_default();
                if set(Arc::make_mut(overrides), record) {
                    self.image.broker_configs.remove(&node);
                }
                self.broker_configs_changed = true;
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord) {
        let endpoints = record.end_points.iter();
        let broker = BrokerImage {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation: record.incarnation_id,
            endpoints: endpoints
                .map(|endpoint| Endpoint {
                    listener: endpoint.name.detached(),
                    host: endpoint.host.detached(),
                    port: endpoint.port,
                })
                .collect(),
            rack: record.rack.as_ref().map(Str::detached),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.log_dirs.clone(),
        };
        self.image
            .brokers
            .insert(record.broker_id, Arc::new(broker));
        self.brokers_changed = true;
    }

    fn registered(
        &mut self,
        offset: i64,
        broker: i32,
        epoch: i64,
    ) -> Result<&mut BrokerImage, ApplyError> {
        self.brokers_changed = true;
        let found = self.image.brokers.get_mut(&broker).map(Arc::make_mut);
        found
            .filter(|found| found.epoch == epoch)
            .ok_or(ApplyError::UnknownBroker {
                offset,
                broker,
                epoch,
            })
    }

    fn change_registration(
        &mut self,
        offset: i64,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), ApplyError> {
        let broker = self.registered(offset, record.broker_id, record.broker_epoch)?;
        // KIP-841: 1 sets, -1 clears, 0 leaves alone.
        match record.fenced {
            1 => broker.fenced = true,
            -1 => broker.fenced = false,
            _ => {}
        }
        match record.in_controlled_shutdown {
            1 => broker.in_controlled_shutdown = true,
            -1 => broker.in_controlled_shutdown = false,
            _ => {}
        }
        if !record.log_dirs.is_empty() {
            broker.directories.clone_from(&record.log_dirs);
        }
        Ok(())
    }

    fn feature_level(&mut self, record: &FeatureLevelRecord) {
        let features = Arc::make_mut(&mut self.image.features);
        if record.feature_level == 0 {
            features.remove(record.name.as_str());
        } else {
            features.insert(record.name.detached(), record.feature_level);
        }
        self.features_changed = true;
    }
}

/// Sets or clears one override; true when none is left.
fn set(overrides: &mut Overrides, record: &ConfigRecord) -> bool {
    match &record.value {
        Some(value) => {
            overrides.insert(record.name.to_string(), value.to_string());
        }
        None => {
            overrides.remove(record.name.as_str());
        }
    }
    overrides.is_empty()
}
