//! What the cluster's metadata log says, folded into one immutable value.
//!
//! An [`Image`] is built from the one before it by [`ImageBuilder`](super::apply::ImageBuilder) and never changes: shards hold an `Arc` of it and read without
//! locks. Versions share all they have in common, so a change costs what it touches, not what there is. Pure: no clock, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use ringlog_net::{Str, Uuid};

use super::names::metric_form;

/// Names and values of a resource's configuration overrides.
pub type Overrides = BTreeMap<String, String>;

/// No overrides at all.
static NO_OVERRIDES: Overrides = BTreeMap::new();

/// Topics that belong to the broker itself; clients see them marked.
const INTERNAL_TOPICS: &[&str] = &[
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
];

/// The metadata of the cluster at one offset of its log.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Offset of the last record that is in here; −1: none.
    pub offset: i64,
    /// Term of that record's batch.
    pub epoch: i32,
    pub(super) names: OrdMap<Str, Uuid>,
    pub(super) topics: HashMap<Uuid, Arc<TopicImage>>,
    /// Names that contain `.` or `_`, by what metrics make of them.
    pub(super) metric_names: HashMap<Str, Arc<Vec<Str>>>,
    pub(super) topic_configs: HashMap<Str, Arc<Overrides>>,
    pub(super) broker_configs: OrdMap<Option<i32>, Arc<Overrides>>,
    pub(super) brokers: OrdMap<i32, Arc<BrokerImage>>,
    pub(super) features: Arc<BTreeMap<Str, i16>>,
    pub(super) next_producer_id: i64,
    pub(super) partition_count: usize,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    /// Its name.
    pub name: Str,
    /// Its id, never used for another topic.
    pub id: Uuid,
    /// Its partitions; the index is the partition's number.
    pub partitions: Vec<PartitionImage>,
    /// Whether it is one of the broker's own.
    pub internal: bool,
}

/// A partition's replicas and who leads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionImage {
    /// Node that leads; −1: none.
    pub leader: i32,
    /// Grows with every election.
    pub leader_epoch: i32,
    /// Grows with every change.
    pub partition_epoch: i32,
    /// Assigned replicas, preferred leader first.
    pub replicas: Vec<i32>,
    /// In-sync replicas.
    pub isr: Vec<i32>,
    /// Data directory of each replica, in the order of `replicas`; zero: not known.
    pub directories: Vec<Uuid>,
    /// Replicas being removed by a reassignment.
    pub removing_replicas: Vec<i32>,
    /// Replicas being added by a reassignment.
    pub adding_replicas: Vec<i32>,
    /// Replicas outside the in-sync set that may still lead (KIP-966).
    pub eligible_leader_replicas: Vec<i32>,
    /// The last eligible ones known when there were none left (KIP-966).
    pub last_known_elr: Vec<i32>,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerImage {
    /// Its `node.id`.
    pub id: i32,
    /// Offset of its registration.
    pub epoch: i64,
    /// The process that registered.
    pub incarnation: Uuid,
    /// Where clients reach it, one per listener.
    pub endpoints: Vec<Endpoint>,
    /// Its rack.
    pub rack: Option<Str>,
    /// Registered, but not serving.
    pub fenced: bool,
    /// Handing over its partitions before it leaves.
    pub in_controlled_shutdown: bool,
    /// The ids of its data directories.
    pub directories: Vec<Uuid>,
}

/// Where a broker's listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the listener.
    pub listener: Str,
    /// Host name or address.
    pub host: Str,
    /// TCP port.
    pub port: u16,
}

impl Default for Image {
    fn default() -> Self {
        Self::empty()
    }
}

impl Image {
    /// The image of an empty log.
    pub fn empty() -> Self {
        Self {
            offset: -1,
            epoch: 0,
            names: OrdMap::new(),
            topics: HashMap::new(),
            metric_names: HashMap::new(),
            topic_configs: HashMap::new(),
            broker_configs: OrdMap::new(),
            brokers: OrdMap::new(),
            features: Arc::new(BTreeMap::new()),
            next_producer_id: 0,
            partition_count: 0,
        }
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// Whether there is such a partition.
    pub fn has_partition(&self, topic: &str, partition: i32) -> bool {
        let count = self.topic(topic).map_or(0, |topic| topic.partitions.len());
        usize::try_from(partition).is_ok_and(|at| at < count)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// Topics whose name is `from` or sorts after it, by name.
    pub fn topics_from(&self, from: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.names
            .range::<_, str>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded))
            .filter_map(|(_, id)| self.topics.get(id))
    }

    /// Another topic whose name is the same but for `.` in place of `_` or the other way round.
    pub fn colliding(&self, name: &str) -> Option<&Str> {
        let alike = self.metric_names.get(metric_form(name).as_str())?;
        alike.iter().find(|other| **other != *name)
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.names.len()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What is set on a topic.
    pub fn topic_configs(&self, name: &str) -> &Overrides {
        self.topic_configs
            .get(name)
            .map_or(&NO_OVERRIDES, Arc::as_ref)
    }

    /// What is set on a broker while running; none: for all brokers.
    pub fn broker_configs(&self, node: Option<i32>) -> &Overrides {
        self.broker_configs
            .get(&node)
            .map_or(&NO_OVERRIDES, Arc::as_ref)
    }

    /// The broker of this `node.id`, fenced or not.
    pub fn broker(&self, node: i32) -> Option<&BrokerImage> {
        self.brokers.get(&node).map(Arc::as_ref)
    }

    /// All registered brokers, by id, fenced ones included.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerImage> {
        self.brokers.values().map(Arc::as_ref)
    }

    /// Feature levels the cluster has agreed on (KIP-584); a feature at level 0 is not in here.
    pub fn finalized_features(&self) -> &BTreeMap<Str, i16> {
        &self.features
    }

    /// The version of [`Self::finalized_features`]: grows when they change and, as in KRaft, with all else.
    pub fn features_epoch(&self) -> i64 {
        self.offset
    }

    /// The first producer id that nobody was given.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }
}

impl TopicImage {
    /// A topic without partitions.
    pub(super) fn new(name: Str, id: Uuid) -> Self {
        let internal = is_internal(&name);
        Self {
            name,
            id,
            partitions: Vec::new(),
            internal,
        }
    }
}

impl BrokerImage {
    /// Its endpoint on a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.listener == *listener)
    }
}

/// Whether a topic of this name is one of the broker's own.
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}
