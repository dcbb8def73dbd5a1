//! What a group sees of the cluster's topics.

use ringlog_net::{Str, Uuid};

/// The topics that there are, as whoever holds the metadata shows them. Where access is controlled, to be narrowed to what the caller may describe.
pub trait TopicView {
    /// A topic's id and number of partitions.
    fn topic_by_name(&self, name: &str) -> Option<(Uuid, i32)>;
    /// A topic's name.
    fn topic_name(&self, id: &Uuid) -> Option<Str>;
    /// The names of all topics, each once.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
    /// Which state of the metadata this is; grows.
    fn version(&self) -> u64;
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A hash of the topics that exist among `names`: their ids, names and numbers of partitions. 0 when there is none, else stable over restarts and versions.
///
/// Kafka hashes the same with XXH3, and the racks of replicas besides (KIP-1101). The value never leaves the coordinator, which only asks whether it has
/// changed, so FNV-1a serves: a group that comes from Kafka is rebalanced once.
pub fn metadata_hash<'a>(names: impl Iterator<Item = &'a str>, topics: &dyn TopicView) -> i64 {
    let mut hash = FNV_OFFSET;
    let mut none = true;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    };
    for name in names {
        if let Some((id, partitions)) = topics.topic_by_name(name) {
            none = false;
            mix(&id.0);
            mix(&partitions.to_be_bytes());
            mix(name.as_bytes());
            // No name contains it: where one ends and the next begins makes a difference.
            mix(&[0]);
        }
    }
    if none {
        return 0;
    }
    // Never 0 where there are topics.
    i64::from_be_bytes(hash.max(1).to_be_bytes())
}
