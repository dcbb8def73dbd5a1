//! OffsetCommit and TxnOffsetCommit, and what becomes of the latter when the transaction ends.
//!
//! All of a request's partitions are stored in one batch or none is.

use std::collections::BTreeMap;

use ringlog_net::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use ringlog_net::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::context::bytes_of;
use super::offsets::{CommittedOffset, NO_TIMESTAMP};
use super::reply::GroupReply;
use super::stored::{self, NO_TOPIC_ID};
use super::table::OffsetKey;
use super::{GroupCoordinator, NAME_BYTES_MAX};
use crate::{Caller, Commands, Record};

/// From this version on a member of a group that is gone is told so; before, clients did not know the error.
const FIRST_WITH_GROUP_ID_NOT_FOUND: i16 = 9;

/// Commits of one request that passed their own checks, and the records that store them.
#[derive(Default)]
struct Commits {
    offsets: Vec<(Str, i32, CommittedOffset)>,
    records: Vec<Record>,
}

impl Commits {
    /// Adds a commit, unless the metadata is too large.
    fn add(
        &mut self,
        group: &Str,
        topic: &Str,
        partition: i32,
        offset: CommittedOffset,
    ) -> ErrorCode {
        // What does not fit into the stored form is too large too: the metadata, for the names were checked.
        match stored::offset(group, topic, partition, &offset) {
            Ok(record) => {
                self.records.push(record);
                self.offsets.push((topic.clone(), partition, offset));
                ErrorCode::NONE
            }
            Err(_) => ErrorCode::OFFSET_METADATA_TOO_LARGE,
        }
    }
}

impl GroupCoordinator {
    /// Handles an OffsetCommit, versions 2 to 10, whose topics have names. Answered at once.
    pub fn offset_commit(
        &mut self,
        caller: &Caller,
        request: OffsetCommitRequest,
        out: &mut Commands<GroupReply>,
    ) {
        let outcome = self
            .check_offset_commit(caller, &request, out)
            .and_then(|()| {
                let (commits, errors) = self.read_offset_commit(caller, &request);
                self.check_room(&request.group_id, None, &commits)?;
                Ok((commits, errors))
            });
        let errors = match outcome {
            Ok((commits, errors)) => {
                self.commit(&request.group_id, None, caller, commits, out);
                errors
            }
            Err(error) => {
                let partitions = request.topics.iter().map(|topic| topic.partitions.len());
                vec![error; partitions.sum()]
            }
        };
        let mut errors = errors.into_iter();
        let topics = request
            .topics
            .iter()
            .map(|topic| OffsetCommitResponseTopic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: topic
                    .partitions
                    .iter()
                    .zip(&mut errors)
                    .map(|(partition, error_code)| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code,
                    })
                    .collect(),
            });
        let reply = OffsetCommitResponse {
            topics: topics.collect(),
            ..OffsetCommitResponse::default()
        };
        out.reply(caller.token, reply);
    }

    fn check_offset_commit(
        &mut self,
        caller: &Caller,
        request: &OffsetCommitRequest,
        out: &mut Commands<GroupReply>,
    ) -> Result<(), ErrorCode> {
        // Kafka takes commits for a group without a name, for old clients.
        let generation = request.generation_id_or_member_epoch;
        let member_id = &request.member_id;
        let instance_id = request.group_instance_id.as_ref();
        if let Some(group) = self.consumer_group(&request.group_id) {
            let version = caller.version;
            let check = group.check_commit(member_id, instance_id, generation, false, version)?;
            let mut partitions = request.topics.iter().flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|partition| (&topic.topic_id, partition.partition_index))
            });
            return partitions.try_for_each(|(topic, partition)| check.partition(topic, partition));
        }
        let checked = self.with_classic(&request.group_id, caller.now, out, |group, context| {
            group.check_commit(member_id, instance_id, generation, false)?;
            group.refresh(member_id, context);
            Ok(())
        });
        match checked {
            Some(checked) => checked,
            None if generation < 0 => self.check_new_group(&request.group_id),
            None if caller.version >= FIRST_WITH_GROUP_ID_NOT_FOUND => {
                Err(ErrorCode::GROUP_ID_NOT_FOUND)
            }
            None => Err(ErrorCode::ILLEGAL_GENERATION),
        }
    }

    /// Whether a group may be made that only has offsets.
    fn check_new_group(&self, group_id: &Str) -> Result<(), ErrorCode> {
        if group_id.len() > NAME_BYTES_MAX {
            Err(ErrorCode::INVALID_GROUP_ID)
        } else if self.groups.len() >= self.config.groups_max {
            Err(ErrorCode::POLICY_VIOLATION)
        } else {
            Ok(())
        }
    }

    fn read_offset_commit(
        &self,
        caller: &Caller,
        request: &OffsetCommitRequest,
    ) -> (Commits, Vec<ErrorCode>) {
        let now_ms = caller.now.wall_ms;
        let expire_timestamp_ms = match request.retention_time_ms {
            -1 => NO_TIMESTAMP,
            retention_ms => now_ms.saturating_add(retention_ms),
        };
        let mut commits = Commits::default();
        let mut errors = Vec::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                errors.push(if self.is_too_large(metadata) {
                    ErrorCode::OFFSET_METADATA_TOO_LARGE
                } else {
                    let offset = CommittedOffset::new(
                        partition.committed_offset,
                        partition.committed_leader_epoch.max(-1),
                        metadata,
                        now_ms,
                        expire_timestamp_ms,
                        topic.topic_id,
                    );
                    commits.add(
                        &request.group_id,
                        &topic.name,
                        partition.partition_index,
                        offset,
                    )
                });
            }
        }
        (commits, errors)
    }

    /// Handles a TxnOffsetCommit, versions 0 to 5. Answered at once; visible when the transaction is committed. The request does not name topics by their ids: whoever
    /// found the topics gives them.
    pub fn txn_offset_commit(
        &mut self,
        caller: &Caller,
        request: TxnOffsetCommitRequest,
        topic_ids: &BTreeMap<Str, Uuid>,
        out: &mut Commands<GroupReply>,
    ) {
        let producer_id = request.producer_id;
        let outcome = self
            .check_txn_offset_commit(caller, &request, out)
            .and_then(|()| {
                let (commits, errors) = self.read_txn_offset_commit(caller, &request, topic_ids);
                self.check_room(&request.group_id, Some(producer_id), &commits)?;
                Ok((commits, errors))
            });
        let errors = match outcome {
            Ok((commits, errors)) => {
                if !commits.records.is_empty() {
                    out.producer = Some((producer_id, request.producer_epoch));
                }
                self.commit(&request.group_id, Some(producer_id), caller, commits, out);
                errors
            }
            Err(error) => {
                let partitions = request.topics.iter().map(|topic| topic.partitions.len());
                vec![error; partitions.sum()]
            }
        };
        let mut errors = errors.into_iter();
        let topics = request
            .topics
            .iter()
            .map(|topic| TxnOffsetCommitResponseTopic {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .zip(&mut errors)
                    .map(|(partition, error_code)| TxnOffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code,
                    })
                    .collect(),
            });
        let reply = TxnOffsetCommitResponse {
            topics: topics.collect(),
            ..TxnOffsetCommitResponse::default()
        };
        out.reply(caller.token, reply);
    }

    fn check_txn_offset_commit(
        &mut self,
        caller: &Caller,
        request: &TxnOffsetCommitRequest,
        out: &mut Commands<GroupReply>,
    ) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        if request.producer_id < 0 {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        let instance_id = request.group_instance_id.as_ref();
        let generation = request.generation_id;
        if let Some(group) = self.consumer_group(&request.group_id) {
            let member_id = &request.member_id;
            let version = caller.version;
            let check = group.check_commit(member_id, instance_id, generation, true, version)?;
            // The request does not name topics by their ids: in an older epoch nothing is sure to be the member's.
            return check.partition(&NO_TOPIC_ID, 0);
        }
        let checked = self.with_classic(&request.group_id, caller.now, out, |group, _| {
            group.check_commit(&request.member_id, instance_id, generation, true)
        });
        match checked {
            Some(checked) => checked,
            None if generation < 0 => self.check_new_group(&request.group_id),
            None => Err(ErrorCode::ILLEGAL_GENERATION),
        }
    }

    fn read_txn_offset_commit(
        &self,
        caller: &Caller,
        request: &TxnOffsetCommitRequest,
        topic_ids: &BTreeMap<Str, Uuid>,
    ) -> (Commits, Vec<ErrorCode>) {
        let mut commits = Commits::default();
        let mut errors = Vec::new();
        for topic in &request.topics {
            let topic_id = topic_ids.get(&topic.name).copied().unwrap_or(NO_TOPIC_ID);
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                errors.push(if self.is_too_large(metadata) {
                    ErrorCode::OFFSET_METADATA_TOO_LARGE
                } else {
                    let offset = CommittedOffset::new(
                        partition.committed_offset,
                        partition.committed_leader_epoch.max(-1),
                        metadata,
                        caller.now.wall_ms,
                        NO_TIMESTAMP,
                        topic_id,
                    );
                    commits.add(
                        &request.group_id,
                        &topic.name,
                        partition.partition_index,
                        offset,
                    )
                });
            }
        }
        (commits, errors)
    }

    fn is_too_large(&self, metadata: &str) -> bool {
        let max = usize::try_from(self.config.offset_metadata_max_bytes).unwrap_or(0);
        metadata.len() > max && metadata.encode_utf16().count() > max
    }

    /// Whether the commits fit into one batch, and into the memory there is.
    fn check_room(
        &self,
        group_id: &Str,
        producer_id: Option<i64>,
        commits: &Commits,
    ) -> Result<(), ErrorCode> {
        if bytes_of(&commits.records) > self.config.batch_bytes_max {
            return Err(ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
        }
        let held = self.offsets_count + self.pending.len();
        if held + commits.offsets.len() <= self.config.offsets_max {
            return Ok(());
        }
        let group = self.groups.get(group_id);
        let is_held = |key: &OffsetKey| {
            group.is_some_and(|group| match producer_id {
                None => group.offsets.contains_key(key),
                Some(producer_id) => group
                    .unstable
                    .get(key)
                    .is_some_and(|producers| producers.contains(&producer_id)),
            })
        };
        let new = commits
            .offsets
            .iter()
            .filter(|(topic, partition, _)| !is_held(&(topic.clone(), *partition)));
        if held + new.count() > self.config.offsets_max {
            return Err(ErrorCode::POLICY_VIOLATION);
        }
        Ok(())
    }

    fn commit(
        &mut self,
        group_id: &Str,
        producer_id: Option<i64>,
        caller: &Caller,
        commits: Commits,
        out: &mut Commands<GroupReply>,
    ) {
        out.records.extend(commits.records);
        let timestamp = Some(caller.now.wall_ms);
        for (topic, partition, offset) in commits.offsets {
            self.put_offset(group_id, timestamp, producer_id, &topic, partition, offset);
        }
    }

    /// Takes in what was appended to the log, or was found there: a commit, at once or until the end of a transaction.
    pub(super) fn put_offset(
        &mut self,
        group_id: &Str,
        group_timestamp_ms: Option<i64>,
        producer_id: Option<i64>,
        topic: &Str,
        partition: i32,
        mut offset: CommittedOffset,
    ) {
        self.sequence += 1;
        offset.sequence = self.sequence;
        let offset = Box::new(offset);
        let group = self.ensure_group(group_id, group_timestamp_ms);
        let Some(producer_id) = producer_id else {
            let key = group.offsets.owned_key(topic, partition);
            let is_new = group.offsets.insert(key, offset).is_none();
            self.offsets_count += usize::from(is_new);
            return;
        };
        let key = group.unstable.owned_key(topic, partition);
        match group.unstable.get_mut(&key) {
            Some(producers) if producers.contains(&producer_id) => {}
            Some(producers) => producers.push(producer_id),
            None => {
                group.unstable.insert(key.clone(), vec![producer_id]);
            }
        }
        let group_id = match self.groups.get_key_value(group_id) {
            Some((owned, _)) => owned,
            None => group_id,
        };
        self.pending.insert(producer_id, group_id, key, offset);
    }

    /// A transaction of a producer ended: what it committed becomes visible or vanishes.
    pub fn on_transaction_marker(&mut self, producer_id: i64, committed: bool) {
        for (group_id, table) in self.pending.take(producer_id) {
            let Some(group) = self.groups.get_mut(&group_id) else {
                debug_assert!(false, "a group with pending offsets is kept");
                continue;
            };
            for (key, offset) in table {
                if let Some(producers) = group.unstable.get_mut(&key) {
                    producers.retain(|producer| *producer != producer_id);
                    if producers.is_empty() {
                        group.unstable.remove(&key);
                    }
                }
                let existing = group.offsets.get(&key);
                let is_newer = existing.is_none_or(|existing| existing.sequence < offset.sequence);
                if committed && is_newer {
                    let is_new = group.offsets.insert(key, offset).is_none();
                    self.offsets_count += usize::from(is_new);
                }
            }
        }
    }
}
