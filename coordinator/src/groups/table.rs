//! A map from partitions, cheap for the many groups that have few of them: a sorted vector while it is short, a tree beyond.

use std::collections::BTreeMap;

use ringlog_net::Str;

/// A topic and a partition.
pub(crate) type OffsetKey = (Str, i32);

/// Beyond this a vector is no better than a tree.
const SHORT_MAX: usize = 16;

/// Values by partition, ordered by topic and partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Table<V> {
    /// At most [`SHORT_MAX`].
    Short(Vec<(OffsetKey, V)>),
    /// Was longer once, and is not empty.
    Long(BTreeMap<OffsetKey, V>),
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table::Short(Vec::new())
    }
}

impl<V> Table<V> {
    fn short(&self) -> &[(OffsetKey, V)] {
        match self {
            Table::Short(entries) => entries,
            Table::Long(_) => &[],
        }
    }

    fn long(&self) -> Option<&BTreeMap<OffsetKey, V>> {
        match self {
            Table::Short(_) => None,
            Table::Long(entries) => Some(entries),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.short().len() + self.long().map_or(0, BTreeMap::len)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, key: &OffsetKey) -> Option<&V> {
        match self {
            Table::Short(entries) => {
                let position = position(entries, key).ok()?;
                Some(&entries[position].1)
            }
            Table::Long(entries) => entries.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: &OffsetKey) -> Option<&mut V> {
        match self {
            Table::Short(entries) => {
                let position = position(entries, key).ok()?;
                Some(&mut entries[position].1)
            }
            Table::Long(entries) => entries.get_mut(key),
        }
    }

    pub(crate) fn contains_key(&self, key: &OffsetKey) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value; returns the one that was there.
    pub(crate) fn insert(&mut self, key: OffsetKey, value: V) -> Option<V> {
        match self {
            Table::Short(entries) => match position(entries, &key) {
                Ok(position) => Some(std::mem::replace(&mut entries[position].1, value)),
                Err(position) if entries.len() < SHORT_MAX => {
                    entries.reserve_exact(1);
                    entries.insert(position, (key, value));
                    None
                }
                Err(_) => {
                    let mut long: BTreeMap<_, _> = std::mem::take(entries).into_iter().collect();
                    long.insert(key, value);
                    *self = Table::Long(long);
                    None
                }
            },
            Table::Long(entries) => entries.insert(key, value),
        }
    }

    pub(crate) fn remove(&mut self, key: &OffsetKey) -> Option<V> {
        let removed = match self {
            Table::Short(entries) => {
                let position = position(entries, key).ok()?;
                Some(entries.remove(position).1)
            }
            Table::Long(entries) => entries.remove(key),
        };
        if self.is_empty() {
            *self = Self::default();
        }
        removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OffsetKey, &V)> {
        let short = self.short().iter().map(|(key, value)| (key, value));
        short.chain(self.long().into_iter().flatten())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &OffsetKey> {
        self.iter().map(|(key, _)| key)
    }

    /// The partitions of one topic.
    pub(crate) fn of_topic(&self, topic: &Str) -> impl Iterator<Item = &OffsetKey> {
        let short = self.short().iter().map(|(key, _)| key);
        let range = (topic.clone(), i32::MIN)..=(topic.clone(), i32::MAX);
        let long = self.long().map(|entries| entries.range(range));
        short
            .filter(move |(known, _)| known == topic)
            .chain(long.into_iter().flatten().map(|(key, _)| key))
    }

    /// A key that owns its memory, shared with the other partitions of the topic.
    pub(crate) fn owned_key(&self, topic: &Str, partition: i32) -> OffsetKey {
        let known = self.of_topic(topic).next();
        (
            known.map_or_else(|| topic.detached(), |(topic, _)| topic.clone()),
            partition,
        )
    }
}

impl<V> IntoIterator for Table<V> {
    type Item = (OffsetKey, V);
    type IntoIter = std::iter::Chain<
        std::vec::IntoIter<(OffsetKey, V)>,
        std::collections::btree_map::IntoIter<OffsetKey, V>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        let (short, long) = match self {
            Table::Short(entries) => (entries, BTreeMap::new()),
            Table::Long(entries) => (Vec::new(), entries),
        };
        short.into_iter().chain(long)
    }
}

fn position<V>(entries: &[(OffsetKey, V)], key: &OffsetKey) -> Result<usize, usize> {
    entries.binary_search_by(|(known, _)| known.cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> OffsetKey {
        (Str::from(format!("t{}", number % 3)), i32::from(number / 3))
    }

    proptest! {
        #[test]
        fn a_table_is_a_map(actions in prop::collection::vec((any::<bool>(), 0..60u8, 0..9u32), 0..200)) {
            let mut table = Table::default();
            let mut map = BTreeMap::new();
            for (is_insert, number, value) in actions {
                let key = key(number);
                if is_insert {
                    prop_assert_eq!(table.insert(key.clone(), value), map.insert(key.clone(), value));
                } else {
                    prop_assert_eq!(table.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(table.get(&key), map.get(&key));
                prop_assert_eq!(table.get_mut(&key).copied(), map.get(&key).copied());
                prop_assert!(table.iter().eq(map.iter()));
                prop_assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
                let topic = &key.0;
                let of_topic = map.keys().filter(|(known, _)| known == topic);
                prop_assert!(table.of_topic(topic).eq(of_topic));
            }
            prop_assert!(table.into_iter().eq(map));
        }
    }
}
