//! Sets of partitions: what a member should own, and what it does own and since which epoch.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::Uuid;
use ringlog_net::messages::consumer_group_heartbeat::TopicPartitions;

/// Partitions by topic id. No topic is empty.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Partitions by topic id, each with the epoch in which its owner got it. No topic is empty.
pub type Owned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// Whether a partition is among those owned.
pub fn owns(owned: &Owned, topic: &Uuid, partition: i32) -> bool {
    owned
        .get(topic)
        .is_some_and(|partitions| partitions.contains_key(&partition))
}

/// Whether a member names any of these partitions as its own; a member that does not say may own all of them.
pub fn claims_any(claimed: Option<&[TopicPartitions]>, of: &Owned) -> bool {
    let Some(claimed) = claimed else {
        return !of.is_empty();
    };
    claimed.iter().any(|topic| {
        topic
            .partitions
            .iter()
            .any(|partition| owns(of, &topic.topic_id, *partition))
    })
}

/// Whether all that a member names as its own is among these partitions; a member that does not say has not shown it.
pub fn claims_only(claimed: Option<&[TopicPartitions]>, of: &Owned) -> bool {
    claimed.is_some_and(|claimed| {
        claimed.iter().all(|topic| {
            topic
                .partitions
                .iter()
                .all(|partition| owns(of, &topic.topic_id, *partition))
        })
    })
}

/// The form in which a heartbeat is answered.
pub fn on_the_wire(owned: &Owned) -> Vec<TopicPartitions> {
    owned
        .iter()
        .map(|(topic_id, partitions)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
        })
        .collect()
}
