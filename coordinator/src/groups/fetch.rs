//! OffsetFetch: what a group has committed.

use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::GroupCoordinator;
use super::group::Group;
use super::offsets::CommittedOffset;
use super::reply::GroupReply;
use super::table::OffsetKey;
use crate::{Caller, Commands};

/// In place of an offset: none.
const NO_OFFSET: i64 = -1;

impl GroupCoordinator {
    /// Handles one group of an OffsetFetch, whose topics have names; null asks for all of them. With `require_stable` a partition with a commit in an open
    /// transaction fails with `UNSTABLE_OFFSET_COMMIT`. A group that is not there has no offsets. Answered at once.
    pub fn offset_fetch(
        &mut self,
        caller: &Caller,
        group: OffsetFetchRequestGroup,
        require_stable: bool,
        out: &mut Commands<GroupReply>,
    ) {
        let known = self.groups.get(&group.group_id).map(|group| &**group);
        // A member of a consumer group must be in its epoch: another may own the partition by now.
        let checked = known
            .and_then(Group::as_consumer)
            .map(|consumers| consumers.check_fetch(group.member_id.as_deref(), group.member_epoch));
        if let Some(Err(error_code)) = checked {
            let reply = OffsetFetchResponseGroup {
                group_id: group.group_id,
                error_code,
                ..OffsetFetchResponseGroup::default()
            };
            out.reply(caller.token, reply);
            return;
        }
        let topics = match &group.topics {
            None => known.map_or_else(Vec::new, |group| all_topics(group, require_stable)),
            Some(topics) => topics
                .iter()
                .map(|topic| OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|partition| {
                            let key = (topic.name.clone(), *partition);
                            partition_of(known, &key, topic.topic_id, require_stable)
                        })
                        .collect(),
                })
                .collect(),
        };
        let reply = OffsetFetchResponseGroup {
            group_id: group.group_id,
            topics,
            error_code: ErrorCode::NONE,
        };
        out.reply(caller.token, reply);
    }
}

fn all_topics(group: &Group, require_stable: bool) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for key in group.offsets.keys() {
        let partition = partition_of(Some(group), key, Uuid::ZERO, require_stable);
        match topics.last_mut() {
            Some(topic) if topic.name == key.0 => topic.partitions.push(partition),
            _ => topics.push(OffsetFetchResponseTopics {
                name: key.0.clone(),
                partitions: vec![partition],
                ..OffsetFetchResponseTopics::default()
            }),
        }
    }
    topics
}

fn partition_of(
    group: Option<&Group>,
    key: &OffsetKey,
    topic_id: Uuid,
    require_stable: bool,
) -> OffsetFetchResponsePartitions {
    let is_unstable = require_stable && group.is_some_and(|group| group.unstable.contains_key(key));
    let committed = group
        .and_then(|group| group.offsets.get(key))
        .filter(|committed| !is_unstable && is_of_topic(committed, topic_id));
    OffsetFetchResponsePartitions {
        partition_index: key.1,
        committed_offset: committed.map_or(NO_OFFSET, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(committed.map_or_else(Str::default, |committed| committed.metadata())),
        error_code: if is_unstable {
            ErrorCode::UNSTABLE_OFFSET_COMMIT
        } else {
            ErrorCode::NONE
        },
    }
}

/// Whether a commit is about the topic that is asked for, and not an older one of the same name.
fn is_of_topic(committed: &CommittedOffset, topic_id: Uuid) -> bool {
    committed.topic_id.is_zero() || topic_id.is_zero() || committed.topic_id == topic_id
}
