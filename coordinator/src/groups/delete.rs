//! Deleting on request: OffsetDelete (KIP-496), DeleteGroups (KIP-229), and the offsets of a topic that is gone.

use ringlog_net::messages::delete_groups::DeletableGroupResult;
use ringlog_net::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::classic::State;
use super::context::bytes_of;
use super::group::GroupKind;
use super::reply::GroupReply;
use super::table::OffsetKey;
use super::work::Work;
use super::{GroupCoordinator, stored};
use crate::{Caller, Commands, Now};

impl GroupCoordinator {
    /// Handles an OffsetDelete. Answered at once.
    pub fn offset_delete(
        &mut self,
        caller: &Caller,
        request: OffsetDeleteRequest,
        out: &mut Commands<GroupReply>,
    ) {
        let reply = match self.delete_offsets(&request, out) {
            Ok(topics) => OffsetDeleteResponse {
                topics,
                ..OffsetDeleteResponse::default()
            },
            Err(error_code) => OffsetDeleteResponse {
                error_code,
                ..OffsetDeleteResponse::default()
            },
        };
        out.reply(caller.token, reply);
    }

    fn delete_offsets(
        &mut self,
        request: &OffsetDeleteRequest,
        out: &mut Commands<GroupReply>,
    ) -> Result<Vec<OffsetDeleteResponseTopic>, ErrorCode> {
        let group_id = &request.group_id;
        if group_id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let group = self
            .groups
            .get(group_id)
            .ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        let subscription = match &group.kind {
            GroupKind::Classic(group) => {
                if group.state() != State::Empty && !group.is_of_consumers() {
                    return Err(ErrorCode::NON_EMPTY_GROUP);
                }
                group.subscription()
            }
            GroupKind::Consumer(held) => held.group.subscription(),
        };
        // First find out whether all fits into a batch, so that all happens or nothing.
        let mut keys: Vec<OffsetKey> = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let is_in_use = subscription.contains(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let key = (topic.name.clone(), partition.partition_index);
                let is_held = group.offsets.contains_key(&key) || group.unstable.contains_key(&key);
                if !is_in_use && is_held {
                    keys.push(key);
                }
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: if is_in_use {
                        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC
                    } else {
                        ErrorCode::NONE
                    },
                });
            }
            topics.push(OffsetDeleteResponseTopic {
                name: topic.name.clone(),
                partitions,
            });
        }
        let records: Vec<_> = keys
            .iter()
            .filter_map(|(topic, partition)| {
                stored::offset_tombstone(group_id, topic, *partition).ok()
            })
            .collect();
        if bytes_of(&records) > self.config.batch_bytes_max {
            return Err(ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
        }
        out.records.extend(records);
        for key in &keys {
            self.remove_offset(group_id, key);
        }
        Ok(topics)
    }

    /// Deletes a group that has no members, with its offsets. Answered when that is done, which is at once unless it has many offsets.
    pub fn delete_group(&mut self, caller: &Caller, group_id: Str, out: &mut Commands<GroupReply>) {
        let work = Work::DeleteGroup {
            group: group_id.detached(),
            token: caller.token,
        };
        self.start_work(work, caller.now, out);
    }

    /// One step of deleting a group; says whether it was the last.
    pub(super) fn delete_group_step(
        &mut self,
        group_id: &Str,
        token: crate::Token,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let error_code = match self.groups.get(group_id) {
            None => ErrorCode::GROUP_ID_NOT_FOUND,
            Some(group) => match &group.kind {
                GroupKind::Classic(group) if group.state() != State::Empty => {
                    ErrorCode::NON_EMPTY_GROUP
                }
                GroupKind::Consumer(held) if !held.group.is_empty() => ErrorCode::NON_EMPTY_GROUP,
                GroupKind::Classic(_) | GroupKind::Consumer(_) => {
                    let keys = group.offsets.keys().chain(group.unstable.keys());
                    let keys: Vec<OffsetKey> = keys.cloned().collect();
                    if !self.remove_offsets(group_id, keys, out) {
                        return false;
                    }
                    self.remove_empty_group(group_id, now, out);
                    ErrorCode::NONE
                }
            },
        };
        let reply = DeletableGroupResult {
            group_id: group_id.clone(),
            error_code,
        };
        out.reply(token, reply);
        true
    }

    /// A topic is gone: the offsets that groups have in it are deleted, if need be in several steps, the others with [`on_timeout`](Self::on_timeout). What was committed for a
    /// newer topic of the same name stays; a zero id takes all of the name.
    pub fn on_topic_deleted(
        &mut self,
        topic: &str,
        topic_id: Uuid,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        let work = Work::DeleteTopic {
            topic: Str::from(topic),
            topic_id,
            until: self.sequence,
            from: None,
        };
        self.start_work(work, now, out);
    }

    /// Deletes offsets until the batch is half full; says whether that were all of them.
    pub(super) fn remove_offsets(
        &mut self,
        group_id: &Str,
        keys: Vec<OffsetKey>,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let mut bytes = bytes_of(&out.records);
        for key in keys {
            if bytes > self.config.batch_bytes_max / 2 {
                return false;
            }
            if !self.remove_offset(group_id, &key) {
                continue;
            }
            if let Ok(record) = stored::offset_tombstone(group_id, &key.0, key.1) {
                bytes += stored::batch_bytes(&record);
                out.records.push(record);
            }
        }
        true
    }

    /// Forgets an offset, and those that wait for the end of a transaction. Whether there was any.
    pub(super) fn remove_offset(&mut self, group_id: &str, key: &OffsetKey) -> bool {
        let Some((group_id, _)) = self.groups.get_key_value(group_id) else {
            return false;
        };
        let group_id = group_id.clone();
        let Some(group) = self.groups.get_mut(&group_id) else {
            return false;
        };
        let was_committed = group.offsets.remove(key).is_some();
        self.offsets_count -= usize::from(was_committed);
        let producers = group.unstable.remove(key);
        for producer_id in producers.iter().flatten() {
            self.pending.remove(*producer_id, &group_id, key);
        }
        was_committed || producers.is_some()
    }

    /// Deletes a group that has neither members nor offsets.
    pub(super) fn remove_empty_group(
        &mut self,
        group_id: &Str,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        match self
            .groups
            .get(group_id)
            .and_then(|group| group.as_consumer())
        {
            Some(group) => out.records.extend(group.tombstones()),
            None => out.records.extend(stored::group_tombstone(group_id).ok()),
        }
        self.drop_group(group_id, now, out);
    }
}
