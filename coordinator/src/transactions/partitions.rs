//! The partitions of a transaction: a set that knows its size in a record.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::Str;
use ringlog_net::coordinators::TransactionPartitions;

/// What a topic takes in a record beyond its name, at most: two lengths and its tags.
const TOPIC_BYTES: usize = 11;
/// What a partition takes in a record.
const PARTITION_BYTES: usize = 4;

/// Partitions by topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Partitions {
    topics: BTreeMap<Str, BTreeSet<i32>>,
    count: usize,
    bytes: usize,
}

impl Partitions {
    /// Adds one; false if it was there.
    pub fn insert(&mut self, topic: &str, partition: i32) -> bool {
        if !self.topics.contains_key(topic) {
            self.topics.insert(Str::from(topic), BTreeSet::new());
            self.bytes += TOPIC_BYTES + topic.len();
        }
        let Some(partitions) = self.topics.get_mut(topic) else {
            return false;
        };
        let added = partitions.insert(partition);
        if added {
            self.count += 1;
            self.bytes += PARTITION_BYTES;
        }
        added
    }

    /// Takes one out; false if it was not there.
    pub fn remove(&mut self, topic: &str, partition: i32) -> bool {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return false;
        };
        let removed = partitions.remove(&partition);
        if removed {
            self.count -= 1;
            self.bytes -= PARTITION_BYTES;
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.bytes -= TOPIC_BYTES + topic.len();
        }
        removed
    }

    /// Whether one is there.
    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.topics
            .get(topic)
            .is_some_and(|partitions| partitions.contains(&partition))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// At least what they take in a record, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Topics with their partitions, in order.
    pub fn topics(&self) -> impl Iterator<Item = (&Str, &BTreeSet<i32>)> {
        self.topics.iter()
    }

    /// Topic and partition, one by one, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Str, i32)> {
        self.topics
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |index| (topic, *index)))
    }

    /// As a record holds them.
    pub fn stored(&self) -> Vec<TransactionPartitions> {
        self.topics
            .iter()
            .map(|(topic, partitions)| TransactionPartitions {
                topic: topic.clone(),
                partition_ids: partitions.iter().copied().collect(),
            })
            .collect()
    }

    /// From a record.
    pub fn from_stored(stored: &[TransactionPartitions]) -> Partitions {
        let mut partitions = Partitions::default();
        for topic in stored {
            for partition in &topic.partition_ids {
                partitions.insert(&topic.topic, *partition);
            }
        }
        partitions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringlog_net::codec::{Message, Writer};

    use super::*;

    proptest! {
        /// Count, emptiness and contents are those of a plain set, and the bytes cover what is really written.
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 0..3usize, 0..5i32), 0..60)) {
            let names = ["a", "topic", "a-longer-name"];
            let mut model = BTreeSet::new();
            let mut partitions = Partitions::default();
            for (insert, topic, partition) in steps {
                let topic = names[topic];
                if insert {
                    prop_assert_eq!(partitions.insert(topic, partition), model.insert((topic, partition)));
                } else {
                    prop_assert_eq!(partitions.remove(topic, partition), model.remove(&(topic, partition)));
                }
                prop_assert_eq!(partitions.len(), model.len());
                prop_assert_eq!(partitions.is_empty(), model.is_empty());
                prop_assert!(model.iter().all(|(topic, index)| partitions.contains(topic, *index)));
                let listed: BTreeSet<(&str, i32)> =
                    partitions.iter().map(|(topic, index)| (topic.as_str(), index)).collect();
                prop_assert_eq!(&listed, &model);
                let stored = partitions.stored();
                prop_assert_eq!(&Partitions::from_stored(&stored), &partitions);
                let mut writer = Writer::new();
                for topic in &stored {
                    topic.encode(&mut writer, 1).unwrap();
                }
                prop_assert!(writer.len() <= partitions.bytes());
            }
        }
    }
}
