//! Making and growing topics: CreateTopics and CreatePartitions, under Kafka's rules.
//!
//! Every topic of a request succeeds or fails for itself; those that succeed go into one atomic batch. Limits on partitions are checked before
//! anything is built, so a request costs what it may make, not what it claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringlog_net::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use ringlog_net::metadata::{ConfigRecord, MetadataRecord, TopicRecord};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::configs::{TOPIC, check_topic_overrides};
use super::image::{Image, Overrides};
use super::placement::{Placement, check_manual, partition_record};
use super::{Controller, Decision, ImageBuilder, Refusal, names};
use crate::config::topic::effective;
use crate::config::topic_keys::TOPIC as TOPIC_KEYS;

/// "The broker's default" for partitions and replication factor (KIP-464).
const BROKER_DEFAULT: i32 = -1;
/// With more topics than this in one request, answers leave the topics' configurations out: each is some two kilobytes.
const DESCRIBED_TOPICS_MAX: usize = 1000;

/// A topic as it will be: one list of replicas for each partition.
struct Plan {
    assignments: Vec<Vec<i32>>,
    overrides: Overrides,
}

impl Controller {
    /// Validates and plans the topics of a request.
    pub fn create_topics(
        &mut self,
        request: &CreateTopicsRequest,
    ) -> Decision<CreateTopicsResponse> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for topic in &request.topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let describe = counts.len() <= DESCRIBED_TOPICS_MAX;
        let mut work = Work::new(self);
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let made = match counts.insert(&topic.name, 0) {
                Some(0) | None => continue,
                Some(1) => self.create_topic(topic, &mut work),
                Some(_) => Err(Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    format!(
                        "topic `{}` is in the request more than once",
                        printable(&topic.name)
                    ),
                )),
            };
            topics.push(match made {
                Ok((id, plan)) => self.created(
                    topic,
                    if request.validate_only {
                        Uuid::ZERO
                    } else {
                        id
                    },
                    &plan,
                    &work,
                    describe,
                ),
                Err(refusal) => CreatableTopicResult {
                    name: topic.name.clone(),
                    error_code: refusal.code,
                    error_message: refusal.text(),
                    ..CreatableTopicResult::default()
                },
            });
        }
        let records = if request.validate_only {
            Vec::new()
        } else {
            work.records
        };
        Decision {
            records,
            response: CreateTopicsResponse {
                topics,
                ..CreateTopicsResponse::default()
            },
        }
    }

    fn create_topic(
        &mut self,
        topic: &CreatableTopic,
        work: &mut Work,
    ) -> Result<(Uuid, Plan), Refusal> {
        names::check_new(work.image(), &topic.name)?;
        let overrides = overrides(topic)?;
        check_topic_overrides(&overrides)?;
        let random = (self.random)();
        let assignments = self.assignments(topic, work, random)?;
        let id = self.new_topic_id();
        let mut records = Vec::with_capacity(1 + overrides.len() + assignments.len());
        records.push(MetadataRecord::Topic(TopicRecord {
            name: topic.name.clone(),
            topic_id: id,
        }));
        for (name, value) in &overrides {
            records.push(MetadataRecord::Config(ConfigRecord {
                resource_type: TOPIC,
                resource_name: topic.name.clone(),
                name: Str::from(name),
                value: Some(Str::from(value)),
            }));
        }
        for (index, replicas) in (0..).zip(&assignments) {
            let record = partition_record(work.image(), id, index, replicas.clone())?;
            records.push(MetadataRecord::Partition(record));
        }
        work.accept(records)?;
        Ok((
            id,
            Plan {
                assignments,
                overrides,
            },
        ))
    }

    fn assignments(
        &self,
        topic: &CreatableTopic,
        work: &mut Work,
        random: u64,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        if !topic.assignments.is_empty() {
            return manual_assignments(topic, work);
        }
        let count = match topic.num_partitions {
            BROKER_DEFAULT => self.config.num_partitions,
            count => count,
        };
        if count <= 0 {
            return Err(Refusal::new(
                ErrorCode::INVALID_PARTITIONS,
                format!(
                    "{count} partitions are not possible; give at least 1, or -1 for the broker's default"
                ),
            ));
        }
        let replication_factor = match i32::from(topic.replication_factor) {
            BROKER_DEFAULT => self.config.default_replication_factor,
            _ => topic.replication_factor,
        };
        let placement = Placement::new(work.image(), random);
        placement.check(replication_factor)?;
        work.reserve(count as usize, replication_factor as usize)?;
        Ok((0..count as usize)
            .map(|index| placement.replicas(index, replication_factor))
            .collect())
    }

    fn created(
        &self,
        topic: &CreatableTopic,
        id: Uuid,
        plan: &Plan,
        work: &Work,
        describe: bool,
    ) -> CreatableTopicResult {
        let replication_factor = plan.assignments.first().map_or(0, Vec::len);
        CreatableTopicResult {
            name: topic.name.clone(),
            topic_id: id,
            num_partitions: plan.assignments.len() as i32,
            replication_factor: replication_factor as i16,
            configs: describe.then(|| self.describe(&topic.name, plan, work.image())),
            ..CreatableTopicResult::default()
        }
    }

    /// What will hold for the new topic, as CreateTopics answers it (KIP-525).
    fn describe(&self, topic: &str, plan: &Plan, image: &Image) -> Vec<CreatableTopicConfigs> {
        debug_assert_eq!(image.topic_configs(topic), &plan.overrides);
        let keys = TOPIC_KEYS.iter();
        keys.map(|key| {
            let effective = effective(key.name, &self.config, image, topic);
            CreatableTopicConfigs {
                name: Str::from_static(key.name),
                value: Some(Str::from(effective.value)),
                read_only: false,
                config_source: effective.source.code(),
                is_sensitive: false,
            }
        })
        .collect()
    }

    /// Validates and plans more partitions for topics.
    pub fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest,
    ) -> Decision<CreatePartitionsResponse> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for topic in &request.topics {
            *counts.entry(&topic.name).or_default() += 1;
        }
        let mut work = Work::new(self);
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let grown = match counts.insert(&topic.name, 0) {
                Some(0) | None => continue,
                Some(1) => self.grow(topic, &mut work),
                Some(_) => Err(Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    format!(
                        "topic `{}` is in the request more than once",
                        printable(&topic.name)
                    ),
                )),
            };
            let (error_code, error_message) = match grown {
                Ok(()) => (ErrorCode::NONE, None),
                Err(refusal) => (refusal.code, refusal.text()),
            };
            results.push(CreatePartitionsTopicResult {
                name: topic.name.clone(),
                error_code,
                error_message,
            });
        }
        let records = if request.validate_only {
            Vec::new()
        } else {
            work.records
        };
        Decision {
            records,
            response: CreatePartitionsResponse {
                results,
                ..CreatePartitionsResponse::default()
            },
        }
    }

    fn grow(&mut self, request: &CreatePartitionsTopic, work: &mut Work) -> Result<(), Refusal> {
        let name = &request.name;
        let Some(topic) = work.image().topic(name).cloned() else {
            return Err(Refusal::new(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                format!("there is no topic `{}`", printable(name)),
            ));
        };
        let have = topic.partitions.len();
        let refuse = |reason: String| Err(Refusal::new(ErrorCode::INVALID_PARTITIONS, reason));
        // Kafka grows them, and from the next start on looks for each group in another partition than the one that its offsets are in.
        if topic.internal {
            return refuse(format!(
                "topic `{name}` stays with its {have} partitions: coordinators find their groups and transactions by that number"
            ));
        }
        let more = match usize::try_from(request.count) {
            Ok(count) if count == have => {
                return refuse(format!("topic `{name}` has {have} partitions already"));
            }
            Ok(count) if count > have => count - have,
            _ => {
                return refuse(format!(
                    "topic `{name}` has {have} partitions; it cannot be shrunk to {}",
                    request.count
                ));
            }
        };
        let replication_factor = topic
            .partitions
            .first()
            .map_or(1, |partition| partition.replicas.len());
        let random = (self.random)();
        let assignments: Vec<Vec<i32>> = match &request.assignments {
            Some(given) => {
                if given.len() != more {
                    return Err(Refusal::new(
                        ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                        format!(
                            "{more} partitions are to be added, {} assignments are given",
                            given.len()
                        ),
                    ));
                }
                work.reserve(more, replication_factor)?;
                for (index, replicas) in (have..).zip(given) {
                    check_manual(
                        work.image(),
                        index,
                        &replicas.broker_ids,
                        replication_factor,
                    )?;
                }
                given
                    .iter()
                    .map(|replicas| replicas.broker_ids.clone())
                    .collect()
            }
            None => {
                let placement = Placement::new(work.image(), random);
                placement.check(replication_factor as i16)?;
                work.reserve(more, replication_factor)?;
                (have..have + more)
                    .map(|index| placement.replicas(index, replication_factor as i16))
                    .collect()
            }
        };
        let mut records = Vec::with_capacity(more);
        for (index, replicas) in (have as i32..).zip(assignments) {
            records.push(MetadataRecord::Partition(partition_record(
                work.image(),
                topic.id,
                index,
                replicas,
            )?));
        }
        work.accept(records)
    }
}

/// What a request has made so far, and how much more it may make.
struct Work {
    builder: ImageBuilder,
    records: Vec<MetadataRecord>,
    request_left: usize,
    broker_left: usize,
    request_max: usize,
    broker_max: usize,
}

impl Work {
    fn new(controller: &Controller) -> Self {
        let limit = |name| usize::try_from(controller.config.number(name)).unwrap_or(0);
        let (request_max, broker_max) = (
            limit("max.partitions.per.request"),
            limit("max.partitions.per.broker"),
        );
        let brokers = controller.image.brokers().count();
        Self {
            builder: ImageBuilder::new(&controller.image),
            records: Vec::new(),
            request_left: request_max,
            broker_left: broker_max
                .saturating_mul(brokers)
                .saturating_sub(controller.image.partition_count()),
            request_max,
            broker_max,
        }
    }

    /// The image with all that was accepted so far.
    fn image(&self) -> &Image {
        self.builder.image()
    }

    /// Takes so many partitions from what the request and the brokers may still have.
    fn reserve(&mut self, partitions: usize, replication_factor: usize) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal::new(ErrorCode::POLICY_VIOLATION, reason));
        if partitions > self.request_left {
            return refuse(format!(
                "one request may make at most {} partitions (max.partitions.per.request); make fewer at a time",
                self.request_max
            ));
        }
        let replicas = partitions.saturating_mul(replication_factor);
        if replicas > self.broker_left {
            return refuse(format!(
                "a broker holds at most {} partitions (max.partitions.per.broker); {} more would fit",
                self.broker_max, self.broker_left
            ));
        }
        self.request_left -= partitions;
        self.broker_left -= replicas;
        Ok(())
    }

    fn accept(&mut self, records: Vec<MetadataRecord>) -> Result<(), Refusal> {
        let offset = self.builder.image().offset + 1;
        let epoch = self.builder.image().epoch;
        self.builder
            .batch(offset, epoch, &records)
            .map_err(|error| Refusal::new(ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string()))?;
        self.records.extend(records);
        Ok(())
    }
}

fn manual_assignments(topic: &CreatableTopic, work: &mut Work) -> Result<Vec<Vec<i32>>, Refusal> {
    let invalid = |reason: &str| Err(Refusal::new(ErrorCode::INVALID_REQUEST, reason));
    if topic.num_partitions != BROKER_DEFAULT {
        return invalid("with replicas assigned by hand the number of partitions must be -1");
    }
    if i32::from(topic.replication_factor) != BROKER_DEFAULT {
        return invalid("with replicas assigned by hand the replication factor must be -1");
    }
    let expected = topic.assignments[0].broker_ids.len();
    work.reserve(topic.assignments.len(), expected)?;
    let mut by_partition = BTreeMap::new();
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if by_partition.insert(index, &assignment.broker_ids).is_some() {
            return Err(Refusal::new(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                format!("partition {index} is assigned more than once"),
            ));
        }
    }
    let mut assignments = Vec::with_capacity(by_partition.len());
    for (wanted, (index, replicas)) in by_partition.into_iter().enumerate() {
        if usize::try_from(index) != Ok(wanted) {
            return Err(Refusal::new(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                format!(
                    "partitions are numbered from 0 without gaps; {index} stands where {wanted} should"
                ),
            ));
        }
        check_manual(work.image(), wanted, replicas, expected)?;
        assignments.push(replicas.clone());
    }
    Ok(assignments)
}

/// The overrides of a topic to be made.
fn overrides(topic: &CreatableTopic) -> Result<Overrides, Refusal> {
    let mut overrides = Overrides::new();
    let mut names = BTreeSet::new();
    for config in &topic.configs {
        let refuse = |reason: String| Err(Refusal::new(ErrorCode::INVALID_CONFIG, reason));
        if !names.insert(config.name.as_str()) {
            return refuse(format!(
                "configuration key `{}` is given more than once",
                printable(&config.name)
            ));
        }
        match &config.value {
            Some(value) => overrides.insert(config.name.to_string(), value.trim().to_string()),
            None => {
                return refuse(format!(
                    "configuration key `{}` has no value",
                    printable(&config.name)
                ));
            }
        };
    }
    Ok(overrides)
}

/// A text from a request as a message may show it: escaped, and not endless.
pub(super) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(names::NAME_BYTES_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}
