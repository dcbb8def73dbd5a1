//! The consumers' own protocol inside the classic one: the bytes in which they say what they read and own, and are told what to read.
//!
//! Versions only add to the end, so one that is newer than what is known here is read as the newest that is.

use std::collections::BTreeSet;

use ringlog_net::codec::{DecodeError, Message as _, Reader, TopLevel, Writer};
use ringlog_net::coordinators::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, EmbeddedTopicPartitions,
};
use ringlog_net::messages::consumer_group_heartbeat::TopicPartitions;
use ringlog_net::{Bytes, Str, Uuid};

use super::assignment::Partitions;
use super::topics::TopicView;

/// The newest version of both.
const NEWEST: i16 = 3;

/// What a member says in its JoinGroup.
#[derive(Clone, Debug)]
pub(in crate::groups) struct Subscription {
    pub(in crate::groups) topics: BTreeSet<Str>,
    pub(in crate::groups) rack_id: Option<Str>,
    /// What it owns and has not given up to join; by the names of topics.
    owned: Vec<EmbeddedTopicPartitions>,
}

impl Subscription {
    /// Reads a subscription into memory of its own.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not of that form.
    pub(in crate::groups) fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
        let body: ConsumerProtocolSubscription = body(bytes)?;
        Ok(Self {
            topics: body.topics.iter().map(Str::detached).collect(),
            rack_id: body
                .rack_id
                .filter(|rack_id| !rack_id.is_empty())
                .map(|rack_id| rack_id.detached()),
            owned: body.owned_partitions,
        })
    }

    /// Whether the member owns anything.
    pub(in crate::groups) fn owns_any(&self) -> bool {
        self.owned.iter().any(|topic| !topic.partitions.is_empty())
    }

    /// What the member owns of topics that there are.
    pub(in crate::groups) fn owned(&self, topics: &dyn TopicView) -> Vec<TopicPartitions> {
        by_id(&self.owned, topics)
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id,
                partitions: partitions.collect(),
            })
            .collect()
    }
}

/// Reads what a member was told to read: its partitions of topics that there are, and whether its leader told it more than that, which is lost. Nothing at all is an
/// assignment too: its member was not told anything yet.
///
/// # Errors
/// [`DecodeError`] when the bytes are not of that form.
pub(in crate::groups) fn read_assignment(
    bytes: &Bytes,
    topics: &dyn TopicView,
) -> Result<(Partitions, bool), DecodeError> {
    let mut partitions = Partitions::new();
    if bytes.is_empty() {
        return Ok((partitions, false));
    }
    let body: ConsumerProtocolAssignment = body(bytes)?;
    for (topic_id, numbers) in by_id(&body.assigned_partitions, topics) {
        let numbers: BTreeSet<i32> = numbers.collect();
        if !numbers.is_empty() {
            let of_topic: &mut BTreeSet<i32> = partitions.entry(topic_id).or_default();
            of_topic.extend(numbers);
        }
    }
    let says_more = body.user_data.is_some_and(|data| !data.is_empty());
    Ok((partitions, says_more))
}

/// Writes what a member is told to read, in the version of its own subscription.
pub(in crate::groups) fn write_assignment(
    partitions: impl IntoIterator<Item = (Uuid, Vec<i32>)>,
    subscription: &Bytes,
    topics: &dyn TopicView,
) -> Bytes {
    let version = Reader::new(subscription.clone()).i16().unwrap_or(0);
    let version = version.clamp(0, NEWEST);
    let body = ConsumerProtocolAssignment {
        assigned_partitions: partitions
            .into_iter()
            .filter_map(|(topic_id, partitions)| {
                Some(EmbeddedTopicPartitions {
                    topic: topics.topic_name(&topic_id)?,
                    partitions,
                })
            })
            .collect(),
        user_data: None,
    };
    let mut writer = Writer::new();
    writer.i16(version);
    body.encode(&mut writer, version)
        .expect("names of topics are short");
    writer.into_bytes()
}

fn body<T: TopLevel>(bytes: &Bytes) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes.clone());
    let version = reader.i16()?;
    T::decode(&mut reader, version.min(NEWEST))
}

/// Those of the partitions that there are.
fn by_id<'a>(
    named: &'a [EmbeddedTopicPartitions],
    topics: &'a dyn TopicView,
) -> impl Iterator<Item = (Uuid, impl Iterator<Item = i32> + 'a)> {
    named.iter().filter_map(|topic| {
        let (topic_id, count) = topics.topic_by_name(&topic.topic)?;
        let numbers = topic.partitions.iter().copied();
        let numbers = numbers.filter(move |number| (0..count).contains(number));
        Some((topic_id, numbers))
    })
}
