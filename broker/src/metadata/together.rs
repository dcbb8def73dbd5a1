//! How many committed changes may reach the shards as one delta.
//!
//! A shard carries a delta out on its own, without waiting for the others. A topic's name is the name of its directories, so a topic that is made
//! again under the name of a deleted one has to wait until every shard has removed what was the deleted one's: it begins a delta of its own.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::metadata::MetadataRecord;
use ringlog_net::{Str, Uuid};

use crate::controller::Image;

/// How many of these batches, from the first on, may be published together over `image`.
pub(super) fn together<'a>(
    image: &Image,
    batches: impl Iterator<Item = &'a [MetadataRecord]>,
) -> usize {
    let mut made: BTreeMap<Uuid, Str> = BTreeMap::new();
    let mut gone: BTreeSet<Str> = BTreeSet::new();
    let mut count = 0;
    for records in batches {
        let again = records.iter().any(
            |record| matches!(record, MetadataRecord::Topic(topic) if gone.contains(&topic.name)),
        );
        if again {
            break;
        }
        for record in records {
            match record {
                MetadataRecord::Topic(topic) => {
                    made.insert(topic.topic_id, topic.name.clone());
                }
                MetadataRecord::RemoveTopic(removed) => {
                    let known = image.topic_by_id(removed.topic_id);
                    let name = known.map(|topic| topic.name.clone());
                    gone.extend(name.or_else(|| made.get(&removed.topic_id).cloned()));
                }
                _ => {}
            }
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    //! A name that is used again ends a delta; everything else goes together.
    use super::*;
    use crate::controller::ImageBuilder;
    use ringlog_net::metadata::{RemoveTopicRecord, TopicRecord};

    fn make(name: &'static str, id: u8) -> Vec<MetadataRecord> {
        vec![MetadataRecord::Topic(TopicRecord {
            name: Str::from_static(name),
            topic_id: Uuid([id; 16]),
        })]
    }

    fn remove(id: u8) -> Vec<MetadataRecord> {
        vec![MetadataRecord::RemoveTopic(RemoveTopicRecord {
            topic_id: Uuid([id; 16]),
        })]
    }

    fn count(image: &Image, batches: &[Vec<MetadataRecord>]) -> usize {
        together(image, batches.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_name_used_again_waits_until_the_old_topic_is_gone_everywhere() {
        let mut builder = ImageBuilder::new(&Image::empty());
        builder.batch(0, 1, &make("x", 1)).unwrap();
        let image = builder.finish().0;
        assert_eq!(count(&image, &[remove(1), make("x", 2)]), 1);
        assert_eq!(count(&image, &[remove(1), make("y", 2), make("x", 3)]), 2);
        assert_eq!(count(&image, &[make("y", 2), remove(2), make("y", 3)]), 2);
        assert_eq!(count(&image, &[remove(1), make("y", 2)]), 2);
        assert_eq!(count(&image, &[make("x", 2)]), 1);
        assert_eq!(count(&image, &[]), 0);
    }
}
