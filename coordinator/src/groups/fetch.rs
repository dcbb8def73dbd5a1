//! OffsetFetch: what a group has committed.

use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::GroupCoordinator;
use super::consumer::TopicView;
use super::group::Group;
use super::reply::GroupReply;
use super::table::OffsetKey;
use crate::{Caller, Commands};

/// In place of an offset: none.
const NO_OFFSET: i64 = -1;

impl GroupCoordinator {
    /// Handles one group of an OffsetFetch, whose topics have names; null asks for all of them. With `require_stable` a partition with a commit in an open
    /// transaction fails with `UNSTABLE_OFFSET_COMMIT`. A group that is not there has no offsets, nor does an older topic of a name that `topics` has. Answered at once.
    pub fn offset_fetch(
        &mut self,
        caller: &Caller,
        group: OffsetFetchRequestGroup,
        require_stable: bool,
        topics: &dyn TopicView,
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
            None => known.map_or_else(Vec::new, |group| all_topics(group, require_stable, topics)),
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

fn all_topics(
    group: &Group,
    require_stable: bool,
    known: &dyn TopicView,
) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    // The name of the topic that is being looked at, and which topic that is now.
    let mut now: Option<(&Str, Uuid)> = None;
    for (key, committed) in group.offsets.iter() {
        let topic_id = match now {
            Some((name, topic_id)) if *name == key.0 => topic_id,
            _ => known.topic_by_name(&key.0).map_or(Uuid::ZERO, |(id, _)| id),
        };
        now = Some((&key.0, topic_id));
        // What the deletion of an older topic of the name has not come to yet.
        if !committed.is_of_topic(topic_id) {
            continue;
        }
        let partition = partition_of(Some(group), key, topic_id, require_stable);
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
        .filter(|committed| !is_unstable && committed.is_of_topic(topic_id));
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
