//! The internal topics that coordinators keep their state in: made when they are first needed, and where a key's partition is.

use std::rc::Rc;

use ringlog_coordinator::partition::partition_for;
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_net::{ErrorCode, Str};

use crate::handlers::partition::Located;
use crate::metadata::decide;
use crate::shard::Shard;

/// How long the making of a topic is waited for, in ms.
const CREATION_TIMEOUT_MS: i32 = 30_000;

/// An internal topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// Groups and their offsets.
    ConsumerOffsets,
    /// Transactions.
    #[expect(dead_code, reason = "its coordinator is still to come")]
    TransactionState,
}

/// Where the state of a group or a transactional id is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The partition's number.
    pub partition: i32,
    /// The shard and all else.
    pub located: Located,
}

impl Internal {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Internal::ConsumerOffsets => "__consumer_offsets",
            Internal::TransactionState => "__transaction_state",
        }
    }

    /// The keys that say how it is made: partitions, replication factor, segment size.
    fn keys(self) -> [&'static str; 3] {
        match self {
            Internal::ConsumerOffsets => [
                "offsets.topic.num.partitions",
                "offsets.topic.replication.factor",
                "offsets.topic.segment.bytes",
            ],
            Internal::TransactionState => [
                "transaction.state.log.num.partitions",
                "transaction.state.log.replication.factor",
                "transaction.state.log.segment.bytes",
            ],
        }
    }
}

impl Shard {
    /// Where the state of `key` is kept.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE when the topic is not there yet, NOT_COORDINATOR when another broker leads the partition.
    pub fn kept(&self, topic: Internal, key: &str) -> Result<Kept, ErrorCode> {
        self.with_image(|image| {
            let topic = image
                .topic(topic.name())
                .ok_or(ErrorCode::COORDINATOR_NOT_AVAILABLE)?;
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            let partition = partition_for(key, count);
            let located = self
                .locate(topic, partition)
                .map_err(|_| ErrorCode::NOT_COORDINATOR)?;
            Ok(Kept { partition, located })
        })
    }

    /// The broker that leads the partition in which the state of `key` is kept.
    pub fn leader_of_kept(&self, topic: Internal, key: &str) -> Option<i32> {
        self.with_image(|image| {
            let topic = image.topic(topic.name())?;
            let count = i32::try_from(topic.partitions.len()).ok()?;
            let at = usize::try_from(partition_for(key, count)).ok()?;
            let leader = topic.partitions.get(at)?.leader;
            (leader >= 0).then_some(leader)
        })
    }

    /// Makes the topic if it is not there; on return every shard has its logs.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE when it cannot be made; the log says why.
    pub async fn ensure_internal(self: &Rc<Self>, topic: Internal) -> Result<(), ErrorCode> {
        if self.with_image(|image| image.topic(topic.name()).is_some()) {
            return Ok(());
        }
        let [partitions, replicas, segment] = topic.keys();
        let brokers = self.with_image(|image| {
            let live = image.brokers().filter(|broker| !broker.fenced);
            live.count()
        });
        // On a small cluster fewer replicas than configured are better than no coordinator.
        let wanted = usize::try_from(self.config.number(replicas)).unwrap_or(1);
        let factor = i16::try_from(wanted.min(brokers).max(1)).unwrap_or(1);
        let set = |name: &'static str, value: &str| CreatableTopicConfig {
            name: Str::from_static(name),
            value: Some(Str::from(value)),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Str::from_static(topic.name()),
                num_partitions: i32::try_from(self.config.number(partitions)).unwrap_or(1),
                replication_factor: factor,
                configs: vec![
                    set("cleanup.policy", "compact"),
                    set("compression.type", "producer"),
                    set("segment.bytes", self.config.get(segment)),
                ],
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let made = decide(self, CREATION_TIMEOUT_MS, move |controller| {
            controller.create_topics(&request)
        });
        let problem = match made.await {
            Ok(response) => match response.topics.first() {
                // Another request was faster.
                Some(made) if made.error_code == ErrorCode::TOPIC_ALREADY_EXISTS => return Ok(()),
                Some(made) if !made.error_code.is_none() => {
                    let message = made.error_message.as_ref().map(ToString::to_string);
                    message.unwrap_or_else(|| made.error_code.to_string())
                }
                _ => return Ok(()),
            },
            Err(refusal) => refusal.message,
        };
        tracing::warn!(
            topic = topic.name(),
            reason = problem,
            "an internal topic could not be made"
        );
        Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }
}
