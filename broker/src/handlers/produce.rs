//! Produce (versions 3 to 13): appends batches, and answers when they are durable.
//!
//! Split in two so that a connection can start its next produce request once the order of this one is fixed: [`begin`] hands each batch to the
//! shard that owns its partition, [`InFlight::finish`] waits until all are on the medium. acks=1 and acks=all mean the same while there is one replica; acks=0 takes
//! the same way without an answer. Transactional batches are verified first ([`transactional_produce`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringlog_net::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use ringlog_net::{ErrorCode, Records, Str, Uuid};

use super::RequestContext;
use super::partition::{Located, Unlocated, leader_endpoints, topic_of};
use super::transactional_produce;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::image::{Image, TopicImage};
use crate::shard::Shard;
use crate::shard::append::{Allowed, AppendItem, AppendOrder, AppendOutcome, Started, settle_all};
use crate::shard::exchange::Pending;
use crate::shard::message::{Reply, Request};

/// From this version on topics are named by id alone.
const TOPIC_IDS_FROM: i16 = 13;

/// Where a batch's outcome goes in the response: topic, partition.
type Place = (usize, usize);

enum Work {
    Here(Vec<Started>),
    There(Pending<Request, Reply>),
}

/// A produce request whose order is fixed.
pub struct InFlight {
    response: ProduceResponse,
    work: Vec<(Vec<Place>, Work)>,
    /// Places whose partition is named again later.
    superseded: BTreeSet<Place>,
}

/// Hands the batches to their shards; on return their order in each log is fixed.
pub async fn begin(context: &RequestContext, request: ProduceRequest) -> InFlight {
    let shard = &context.shard;
    let image = shard.local_image();
    let refusal = refusal_of(context, &request);
    let mut response = ProduceResponse::default();
    let mut groups: BTreeMap<usize, (Vec<Place>, Vec<AppendItem>)> = BTreeMap::new();
    let mut leaders = Vec::new();
    // Where the batch of each partition is; of no use for the many requests with one.
    let mut seen: HashMap<(Uuid, i32), usize> = HashMap::new();
    let mut superseded = BTreeSet::new();
    let several = request.topic_data.len() > 1
        || request
            .topic_data
            .first()
            .is_some_and(|data| data.partition_data.len() > 1);
    for (topic_at, data) in request.topic_data.into_iter().enumerate() {
        let found = find_topic(context, &image, &data.name, data.topic_id);
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for (at, partition) in data.partition_data.into_iter().enumerate() {
            let index = partition.index;
            let located = match (refusal, &found) {
                (Some(error), _) => Err(Unlocated::because(error)),
                (None, Err(error)) => Err(Unlocated::because(*error)),
                (None, Ok(topic)) => shard
                    .locate(topic, index)
                    .and_then(|located| check_in_sync(shard, located, request.acks)),
            };
            let mut answer = PartitionProduceResponse {
                index,
                ..Default::default()
            };
            match located {
                Ok(_) if partition.records.as_ref().is_none_or(Records::is_empty) => {
                    let reason = "a produce request has one record batch for each partition";
                    let outcome =
                        AppendOutcome::refused(ErrorCode::INVALID_RECORD, reason.to_string());
                    fill(&mut answer, outcome);
                }
                Ok(Located {
                    shard,
                    leader_epoch,
                    topic_id,
                    ..
                }) => {
                    let batch = partition.records.map(|records| records.to_bytes());
                    let item = AppendItem {
                        topic_id,
                        partition: index,
                        leader_epoch,
                        batch: batch.unwrap_or_default(),
                        guard: None,
                    };
                    let (places, items) = groups.entry(shard).or_default();
                    let before = match several {
                        true => seen.insert((topic_id, index), items.len()),
                        false => None,
                    };
                    match before {
                        // As Kafka: of a partition named twice the last batch counts, and it alone is answered.
                        Some(there) => {
                            seen.insert((topic_id, index), there);
                            superseded.insert(places[there]);
                            places[there] = (topic_at, at);
                            items[there] = item;
                        }
                        None => {
                            places.push((topic_at, at));
                            items.push(item);
                        }
                    }
                }
                Err(Unlocated { error, leader }) => {
                    fill(&mut answer, AppendOutcome::refused(error, None));
                    if let Some((leader_id, leader_epoch)) = leader {
                        answer.current_leader = LeaderIdAndEpoch {
                            leader_id,
                            leader_epoch,
                        };
                        leaders.push(leader_id);
                    }
                }
            }
            partitions.push(answer);
        }
        response.responses.push(TopicProduceResponse {
            name: data.name,
            topic_id: data.topic_id,
            partition_responses: partitions,
        });
    }
    let endpoints = leader_endpoints(&image, leaders, &context.connection.listener);
    response.node_endpoints = endpoints
        .map(|(node_id, endpoint, rack)| NodeEndpoint {
            node_id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack,
        })
        .collect();
    if let Some(transactional_id) = &request.transactional_id {
        let refused = transactional_produce::verify(context, transactional_id, &mut groups).await;
        for ((topic, partition), outcome) in refused {
            fill(
                &mut response.responses[topic].partition_responses[partition],
                outcome,
            );
        }
    }
    let allowed = Allowed {
        zstd: context.version >= 7,
        transactional: request.transactional_id.is_some(),
    };
    let mut work = Vec::with_capacity(groups.len());
    for (owner, (places, items)) in groups {
        let order = AppendOrder { items, allowed };
        let started = if owner == shard.index {
            Work::Here(shard.start_append(order).await)
        } else {
            Work::There(shard.exchange.call(owner, Request::Append(order)).await)
        };
        work.push((places, started));
    }
    InFlight {
        response,
        work,
        superseded,
    }
}

/// acks=all wants as many replicas in sync as `min.insync.replicas` says.
fn check_in_sync(shard: &Shard, located: Located, acks: i16) -> Result<Located, Unlocated> {
    let wanted = match acks {
        -1 => shard
            .topic_settings(located.topic_id)
            .map_or(1, |settings| settings.min_insync_replicas),
        _ => 1,
    };
    match located.in_sync >= wanted {
        true => Ok(located),
        false => Err(Unlocated::because(ErrorCode::NOT_ENOUGH_REPLICAS)),
    }
}

/// What is wrong with the request as a whole.
fn refusal_of(context: &RequestContext, request: &ProduceRequest) -> Option<ErrorCode> {
    let transactional_id = request.transactional_id.as_ref();
    if transactional_id.is_some_and(|id| !transactional_produce::may_write(context, id)) {
        return Some(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    (!(-1..=1).contains(&request.acks)).then_some(ErrorCode::INVALID_REQUIRED_ACKS)
}

fn find_topic<'a>(
    context: &RequestContext,
    image: &'a Image,
    name: &str,
    id: Uuid,
) -> Result<&'a TopicImage, ErrorCode> {
    if context.version >= TOPIC_IDS_FROM && id.is_zero() {
        return Err(ErrorCode::UNKNOWN_TOPIC_ID);
    }
    let topic = topic_of(image, name, id)?;
    if !context.authorize(Operation::Write, ResourceType::Topic, &topic.name) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    // Coordinators alone write what they are loaded from. Kafka lets an `__admin_client` through, whose records its coordinators do not see either.
    match topic.internal {
        true => Err(ErrorCode::INVALID_TOPIC_EXCEPTION),
        false => Ok(topic),
    }
}

fn fill(answer: &mut PartitionProduceResponse, outcome: AppendOutcome) {
    answer.error_code = outcome.error;
    answer.base_offset = outcome.base_offset;
    answer.log_append_time_ms = outcome.log_append_time;
    answer.log_start_offset = outcome.log_start_offset;
    answer.error_message = outcome.message.map(Str::from);
    let record_error = |(batch_index, message): (i32, &'static str)| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: Some(Str::from_static(message)),
    };
    answer.record_errors = outcome
        .record_errors
        .into_iter()
        .map(record_error)
        .collect();
}

impl InFlight {
    /// Whether other shards may still hold the batches. What this shard appends is copied by now.
    pub fn is_elsewhere(&self) -> bool {
        self.work
            .iter()
            .any(|(_, work)| matches!(work, Work::There(_)))
    }

    /// Resolves when every batch is durable or refused.
    pub async fn finish(self) -> ProduceResponse {
        let mut response = self.response;
        for (places, work) in self.work {
            let outcomes = match work {
                Work::Here(started) => settle_all(started).await,
                Work::There(pending) => match pending.await {
                    Ok(Reply::Appended(outcomes)) => outcomes,
                    Ok(Reply::Job(_)) | Err(_) => Vec::new(),
                },
            };
            let mut outcomes = outcomes.into_iter();
            for (topic, partition) in places {
                let outcome = outcomes.next().unwrap_or_else(|| {
                    AppendOutcome::refused(
                        ErrorCode::KAFKA_STORAGE_ERROR,
                        "the partition's shard did not answer".to_string(),
                    )
                });
                fill(
                    &mut response.responses[topic].partition_responses[partition],
                    outcome,
                );
            }
        }
        if !self.superseded.is_empty() {
            for (topic_at, topic) in response.responses.iter_mut().enumerate() {
                let mut places = (0..).map(|at| (topic_at, at));
                let answered = |place: Option<Place>| {
                    place.is_none_or(|place| !self.superseded.contains(&place))
                };
                topic
                    .partition_responses
                    .retain(|_| answered(places.next()));
            }
        }
        response
    }
}

/// The first partition error of a response in words, if there is one.
pub fn first_error(response: &ProduceResponse) -> Option<String> {
    let mut partitions = response.responses.iter().flat_map(|topic| {
        topic
            .partition_responses
            .iter()
            .map(move |partition| (&topic.name, partition))
    });
    let (topic, partition) = partitions.find(|(_, partition)| partition.error_code.is_error())?;
    let reason = partition
        .error_message
        .as_ref()
        .map(Str::as_str)
        .unwrap_or_default();
    Some(format!(
        "{topic}-{}: {} {reason}",
        partition.index, partition.error_code
    ))
}
