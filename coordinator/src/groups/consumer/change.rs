//! The changes of a consumer group, each of which is one record in `__consumer_offsets`: types 3 to 8 and 16, in Kafka's form.
//!
//! A group changes by these alone, when it serves requests as when it is loaded, so what is loaded cannot differ from what was.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use ringlog_net::codec::{DecodeError, Reader, TopLevel, Writer};
use ringlog_net::coordinators::{
    AssignedTopicPartitions, ClassicMemberMetadata, ClassicProtocol,
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupPartitionMetadataKey,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue,
    TargetTopicPartitions,
};
use ringlog_net::{Bytes, Str};

use super::assignment::{Owned, Partitions};
use super::expression::Resolved;
use super::member::{Classic, Current, MemberState, Metadata};
use crate::record::Record;

/// The types of a consumer group's records.
pub mod record_type {
    /// The group's epoch.
    pub const METADATA: i16 = 3;
    /// The topics' partitions; replaced by a hash in [`METADATA`].
    pub const PARTITION_METADATA: i16 = 4;
    /// What a member says of itself.
    pub const MEMBER_METADATA: i16 = 5;
    /// The epoch of the target assignment.
    pub const TARGET_METADATA: i16 = 6;
    /// What a member should own.
    pub const TARGET_MEMBER: i16 = 7;
    /// What a member owns.
    pub const CURRENT_ASSIGNMENT: i16 = 8;
    /// What a regular expression matched.
    pub const REGULAR_EXPRESSION: i16 = 16;
}

/// A change of a group; none of a value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The group's epoch, and the hash of its topics. A tombstone is the end of the group.
    Epoch(Option<(i32, i64)>),
    /// There is a record of the kind that the hash has replaced.
    PartitionMetadata(bool),
    /// A member joins, says something new, or is gone.
    Member(Str, Option<Arc<Metadata>>),
    /// The epoch of the target assignment, and when it was made, in ms since the epoch.
    TargetEpoch(Option<(i32, i64)>),
    /// What a member should own.
    Target(Str, Option<Partitions>),
    /// What a member owns.
    Current(Str, Option<Current>),
    /// What an expression matched.
    Expression(Str, Option<Resolved>),
}

/// A record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its key or value is not what its type says.
    Malformed(DecodeError),
    /// Its value is of a version that is not known here.
    Version(i16),
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        Unreadable::Malformed(error)
    }
}

impl Change {
    /// Whether records of a type belong to consumer groups.
    pub fn is_of_type(record_type: i16) -> bool {
        (record_type::METADATA..=record_type::CURRENT_ASSIGNMENT).contains(&record_type)
            || record_type == record_type::REGULAR_EXPRESSION
    }

    /// Whether the record of this change deletes its key.
    pub fn is_tombstone(&self) -> bool {
        matches!(
            self,
            Change::Epoch(None)
                | Change::PartitionMetadata(false)
                | Change::Member(_, None)
                | Change::TargetEpoch(None)
                | Change::Target(_, None)
                | Change::Current(_, None)
                | Change::Expression(_, None)
        )
    }

    /// The record of this change.
    pub fn record(&self, group_id: &Str) -> Record {
        let group_id = group_id.clone();
        match self {
            Change::Epoch(value) => record(
                record_type::METADATA,
                &ConsumerGroupMetadataKey { group_id },
                value.as_ref(),
                |(epoch, metadata_hash)| ConsumerGroupMetadataValue {
                    epoch: *epoch,
                    metadata_hash: *metadata_hash,
                },
            ),
            // Only ever deleted: nothing here writes it.
            Change::PartitionMetadata(_) => record(
                record_type::PARTITION_METADATA,
                &ConsumerGroupPartitionMetadataKey { group_id },
                None::<&()>,
                |()| ConsumerGroupMetadataValue::default(),
            ),
            Change::Member(member_id, value) => record(
                record_type::MEMBER_METADATA,
                &ConsumerGroupMemberMetadataKey {
                    group_id,
                    member_id: member_id.clone(),
                },
                value.as_deref(),
                member_value,
            ),
            Change::TargetEpoch(value) => record(
                record_type::TARGET_METADATA,
                &ConsumerGroupTargetAssignmentMetadataKey { group_id },
                value.as_ref(),
                |(assignment_epoch, assignment_timestamp)| {
                    ConsumerGroupTargetAssignmentMetadataValue {
                        assignment_epoch: *assignment_epoch,
                        assignment_timestamp: *assignment_timestamp,
                    }
                },
            ),
            Change::Target(member_id, value) => record(
                record_type::TARGET_MEMBER,
                &ConsumerGroupTargetAssignmentMemberKey {
                    group_id,
                    member_id: member_id.clone(),
                },
                value.as_ref(),
                target_value,
            ),
            Change::Current(member_id, value) => record(
                record_type::CURRENT_ASSIGNMENT,
                &ConsumerGroupCurrentMemberAssignmentKey {
                    group_id,
                    member_id: member_id.clone(),
                },
                value.as_ref(),
                current_value,
            ),
            Change::Expression(regular_expression, value) => record(
                record_type::REGULAR_EXPRESSION,
                &ConsumerGroupRegularExpressionKey {
                    group_id,
                    regular_expression: regular_expression.clone(),
                },
                value.as_ref(),
                |resolved| ConsumerGroupRegularExpressionValue {
                    topics: resolved.topics.iter().cloned().collect(),
                    version: resolved.version,
                    timestamp: resolved.timestamp_ms,
                },
            ),
        }
    }

    /// Reads a record back: the group it is of, and the change; none for a type that is not a consumer group's. What is returned shares no memory with the
    /// record.
    ///
    /// # Errors
    /// [`Unreadable`] when the record is of a consumer group's type and not of its form.
    pub fn read(key: &Bytes, value: Option<&Bytes>) -> Result<Option<(Str, Change)>, Unreadable> {
        let mut key = Reader::new(key.clone());
        let record_type = key.i16()?;
        if !Change::is_of_type(record_type) {
            return Ok(None);
        }
        let (group_id, change) = match record_type {
            record_type::METADATA => {
                let key: ConsumerGroupMetadataKey = whole(key, 0)?;
                let value = body::<ConsumerGroupMetadataValue>(value)?;
                let value = value.map(|value| (value.epoch, value.metadata_hash));
                (key.group_id, Change::Epoch(value))
            }
            record_type::PARTITION_METADATA => {
                let key: ConsumerGroupPartitionMetadataKey = whole(key, 0)?;
                (key.group_id, Change::PartitionMetadata(value.is_some()))
            }
            record_type::MEMBER_METADATA => {
                let key: ConsumerGroupMemberMetadataKey = whole(key, 0)?;
                let value = body::<ConsumerGroupMemberMetadataValue>(value)?;
                let value = value.map(|value| Arc::new(member_of(&value)));
                (
                    key.group_id,
                    Change::Member(key.member_id.detached(), value),
                )
            }
            record_type::TARGET_METADATA => {
                let key: ConsumerGroupTargetAssignmentMetadataKey = whole(key, 0)?;
                let value = body::<ConsumerGroupTargetAssignmentMetadataValue>(value)?;
                let value = value.map(|value| (value.assignment_epoch, value.assignment_timestamp));
                (key.group_id, Change::TargetEpoch(value))
            }
            record_type::TARGET_MEMBER => {
                let key: ConsumerGroupTargetAssignmentMemberKey = whole(key, 0)?;
                let value = body::<ConsumerGroupTargetAssignmentMemberValue>(value)?;
                let value = value.map(|value| target_of(&value));
                (
                    key.group_id,
                    Change::Target(key.member_id.detached(), value),
                )
            }
            record_type::CURRENT_ASSIGNMENT => {
                let key: ConsumerGroupCurrentMemberAssignmentKey = whole(key, 0)?;
                let value = body::<ConsumerGroupCurrentMemberAssignmentValue>(value)?;
                let value = value.map(|value| current_of(&value));
                (
                    key.group_id,
                    Change::Current(key.member_id.detached(), value),
                )
            }
            _ => {
                let key: ConsumerGroupRegularExpressionKey = whole(key, 0)?;
                let value = body::<ConsumerGroupRegularExpressionValue>(value)?;
                let value = value.map(|value| Resolved {
                    topics: value.topics.iter().map(Str::detached).collect(),
                    version: value.version,
                    timestamp_ms: value.timestamp,
                });
                let expression = key.regular_expression.detached();
                (key.group_id, Change::Expression(expression, value))
            }
        };
        Ok(Some((group_id.detached(), change)))
    }
}

fn record<T, V: TopLevel>(
    record_type: i16,
    key: &impl TopLevel,
    value: Option<&T>,
    of: impl FnOnce(&T) -> V,
) -> Record {
    Record {
        key: written(record_type, 0, key),
        value: value.map(|value| written(0, 0, &of(value))),
    }
}

/// A number of two bytes and a body.
fn written(number: i16, version: i16, body: &impl TopLevel) -> Bytes {
    let mut writer = Writer::new();
    body.encode(&mut writer, version)
        .expect("keys are shorter than 32 KiB: requests with longer ids are refused");
    let body = writer.into_bytes();
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(number);
    bytes.put_slice(&body);
    bytes.freeze()
}

fn whole<T: TopLevel>(mut reader: Reader, version: i16) -> Result<T, DecodeError> {
    let body = T::decode(&mut reader, version)?;
    reader.finish()?;
    Ok(body)
}

fn body<T: TopLevel>(value: Option<&Bytes>) -> Result<Option<T>, Unreadable> {
    let Some(value) = value else {
        return Ok(None);
    };
    let mut reader = Reader::new(value.clone());
    let version = reader.i16()?;
    if !T::VERSIONS.contains(version) {
        return Err(Unreadable::Version(version));
    }
    Ok(Some(whole(reader, version)?))
}

fn member_value(metadata: &Metadata) -> ConsumerGroupMemberMetadataValue {
    ConsumerGroupMemberMetadataValue {
        instance_id: metadata.instance_id.clone(),
        rack_id: metadata.rack_id.clone(),
        client_id: metadata.client_id.clone(),
        client_host: metadata.client_host.clone(),
        subscribed_topic_names: metadata.topic_names.iter().cloned().collect(),
        subscribed_topic_regex: metadata.topic_regex.clone(),
        rebalance_timeout_ms: metadata.rebalance_timeout_ms,
        server_assignor: metadata.server_assignor.clone(),
        classic_member_metadata: metadata
            .classic
            .as_ref()
            .map(|classic| ClassicMemberMetadata {
                session_timeout_ms: classic.session_timeout_ms,
                supported_protocols: classic
                    .protocols
                    .iter()
                    .map(|(name, metadata)| ClassicProtocol {
                        name: name.clone(),
                        metadata: metadata.clone(),
                    })
                    .collect(),
            }),
    }
}

fn member_of(value: &ConsumerGroupMemberMetadataValue) -> Metadata {
    let detached = |text: &Option<Str>| text.as_ref().map(Str::detached);
    Metadata {
        instance_id: detached(&value.instance_id),
        rack_id: detached(&value.rack_id),
        client_id: value.client_id.detached(),
        client_host: value.client_host.detached(),
        topic_names: value
            .subscribed_topic_names
            .iter()
            .map(Str::detached)
            .collect(),
        topic_regex: detached(&value.subscribed_topic_regex).filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: detached(&value.server_assignor),
        classic: value
            .classic_member_metadata
            .as_ref()
            .map(|classic| Classic {
                session_timeout_ms: classic.session_timeout_ms,
                protocols: classic
                    .supported_protocols
                    .iter()
                    .map(|protocol| {
                        let metadata = Bytes::copy_from_slice(&protocol.metadata);
                        (protocol.name.detached(), metadata)
                    })
                    .collect(),
            }),
    }
}

fn target_value(partitions: &Partitions) -> ConsumerGroupTargetAssignmentMemberValue {
    ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: partitions
            .iter()
            .map(|(topic_id, partitions)| TargetTopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
            })
            .collect(),
    }
}

fn target_of(value: &ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in &value.topic_partitions {
        if !topic.partitions.is_empty() {
            let of_topic: &mut BTreeSet<i32> = partitions.entry(topic.topic_id).or_default();
            of_topic.extend(&topic.partitions);
        }
    }
    partitions
}

fn current_value(current: &Current) -> ConsumerGroupCurrentMemberAssignmentValue {
    ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: current.epoch,
        previous_member_epoch: current.previous_epoch,
        state: current.state.code(),
        assigned_partitions: owned_value(&current.assigned),
        partitions_pending_revocation: owned_value(&current.revoking),
    }
}

fn current_of(value: &ConsumerGroupCurrentMemberAssignmentValue) -> Current {
    Current {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        state: MemberState::of(value.state),
        assigned: owned_of(&value.assigned_partitions, value.member_epoch),
        revoking: owned_of(&value.partitions_pending_revocation, value.member_epoch),
    }
}

fn owned_value(owned: &Owned) -> Vec<AssignedTopicPartitions> {
    owned
        .iter()
        .map(|(topic_id, partitions)| AssignedTopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
            assignment_epochs: Some(partitions.values().copied().collect()),
        })
        .collect()
}

/// Older records lack the epochs of single partitions: the member's stands for all, as far as it is one.
fn owned_of(topics: &[AssignedTopicPartitions], member_epoch: i32) -> Owned {
    let mut owned = Owned::new();
    for topic in topics {
        let epochs = topic
            .assignment_epochs
            .as_ref()
            .filter(|epochs| epochs.len() == topic.partitions.len());
        for (index, partition) in topic.partitions.iter().enumerate() {
            let epoch = epochs.and_then(|epochs| epochs.get(index).copied());
            owned
                .entry(topic.topic_id)
                .or_default()
                .insert(*partition, epoch.unwrap_or(member_epoch.max(0)));
        }
    }
    owned
}
