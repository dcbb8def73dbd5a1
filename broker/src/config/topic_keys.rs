//! The table of topic-level configuration keys: Kafka's names and defaults, each with the broker key it falls back to.
//!
//! Only a table: resolution is in `topic.rs`.

use super::keys::Importance;
use super::kind::Kind;

/// One topic-level key.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// The broker key whose value is the default, when there is one.
    pub broker_key: Option<&'static str>,
    /// The default where there is no broker key.
    pub default: &'static str,
    /// How much it matters.
    pub importance: Importance,
    /// What it does here.
    pub doc: &'static str,
}

const LONG_0: Kind = Kind::Long {
    min: 0,
    max: i64::MAX,
};
const LONG_1: Kind = Kind::Long {
    min: 1,
    max: i64::MAX,
};
const LONG_M2: Kind = Kind::Long {
    min: -2,
    max: i64::MAX,
};
const LONG_M1: Kind = Kind::Long {
    min: -1,
    max: i64::MAX,
};
const INT_0: Kind = Kind::Int {
    min: 0,
    max: i32::MAX as i64,
};
const INT_1M: Kind = Kind::Int {
    min: 1024,
    max: i32::MAX as i64,
};
const INT_1: Kind = Kind::Int {
    min: 1,
    max: i32::MAX as i64,
};
/// `cleanup.policy` values.
pub const CLEANUP: Kind = Kind::ListOf(&["delete", "compact"]);
/// `compression.type` values. Kafka compresses anew what comes in another codec than the one that is named; to take the name and not do it
/// would deceive whoever counts on the size, or on a codec that all readers know.
pub const COMPRESSION: Kind = Kind::Only(
    "producer",
    "batches are stored as producers compressed them",
);
/// `message.timestamp.type` values.
pub const TIMESTAMP_TYPE: Kind = Kind::OneOf(&["CreateTime", "LogAppendTime"]);

const fn key(
    name: &'static str,
    kind: Kind,
    broker_key: &'static str,
    importance: Importance,
    doc: &'static str,
) -> TopicKey {
    TopicKey {
        name,
        kind,
        broker_key: Some(broker_key),
        default: "",
        importance,
        doc,
    }
}

const fn own(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> TopicKey {
    TopicKey {
        name,
        kind,
        broker_key: None,
        default,
        importance: Importance::Medium,
        doc,
    }
}

use Importance::{High, Low, Medium};

/// Every topic-level key, sorted by name.
#[rustfmt::skip]
pub const TOPIC: &[TopicKey] = &[
    key("cleanup.policy", CLEANUP, "log.cleanup.policy", Medium, "What happens to old records: `delete` removes segments by time and size, `compact` keeps the last value of every key, both together do both."),
    key("compression.type", COMPRESSION, "compression.type", Medium, "Only `producer`, which keeps batches as they were sent: they are never compressed anew."),
    own("compression.gzip.level", Kind::Int { min: -1, max: 9 }, "-1", "Accepted; batches are stored as the producer compressed them."),
    own("compression.lz4.level", Kind::Int { min: 1, max: 17 }, "9", "Accepted; batches are stored as the producer compressed them."),
    own("compression.zstd.level", Kind::Int { min: -131_072, max: 22, }, "3", "Accepted; batches are stored as the producer compressed them."),
    key("delete.retention.ms", LONG_0, "log.cleaner.delete.retention.ms", Medium, "How long tombstones, and markers of transactions without records, stay after the log was first compacted up to them."),
    key("file.delete.delay.ms", LONG_0, "log.segment.delete.delay.ms", Medium, "Accepted; the broker's `log.segment.delete.delay.ms` holds for all topics."),
    key("flush.messages", LONG_1, "log.flush.interval.messages", Medium, "Accepted, and always exceeded: every record is on the medium before it is acknowledged."),
    key("flush.ms", LONG_0, "log.flush.interval.ms", Medium, "Accepted, and always exceeded: every record is on the medium before it is acknowledged."),
    own("follower.replication.throttled.replicas", Kind::List, "", "Accepted until there is replication: replicas whose replication is throttled on the follower's side."),
    key("index.interval.bytes", INT_0, "log.index.interval.bytes", Medium, "Bytes of log between two entries of the offset index."),
    own("leader.replication.throttled.replicas", Kind::List, "", "Accepted until there is replication: replicas whose replication is throttled on the leader's side."),
    own("local.retention.bytes", LONG_M2, "-2", "Accepted for tiered storage, which is not offered."),
    own("local.retention.ms", LONG_M2, "-2", "Accepted for tiered storage, which is not offered."),
    key("max.compaction.lag.ms", LONG_1, "log.cleaner.max.compaction.lag.ms", Medium, "A log is compacted, and its active segment rolls with the next record, when a record has waited longer."),
    key("max.message.bytes", INT_0, "message.max.bytes", Medium, "Largest record batch the topic takes, header included."),
    key("message.timestamp.after.max.ms", LONG_0, "log.message.timestamp.after.max.ms", Medium, "How far in the future a record's timestamp may lie."),
    key("message.timestamp.before.max.ms", LONG_0, "log.message.timestamp.before.max.ms", Medium, "How far in the past a record's timestamp may lie."),
    key("message.timestamp.type", TIMESTAMP_TYPE, "log.message.timestamp.type", Medium, "Whether records carry the producer's time or the broker's."),
    key("min.cleanable.dirty.ratio", Kind::Double { min: 0.0, max: 1.0 }, "log.cleaner.min.cleanable.ratio", Medium, "A log is compacted when more than this share of it is not."),
    key("min.compaction.lag.ms", LONG_0, "log.cleaner.min.compaction.lag.ms", Medium, "A record stays uncompacted for at least so long."),
    key("min.insync.replicas", INT_1, "min.insync.replicas", Medium, "In-sync replicas that must have a record before acks=all is answered."),
    key("preallocate", Kind::Boolean, "log.preallocate", Medium, "Accepted; space is always reserved ahead of writing."),
    own("remote.storage.enable", Kind::Only("false", "tiered storage is not offered"), "false", "Tiered storage is not offered."),
    key("retention.bytes", LONG_M1, "log.retention.bytes", Medium, "Oldest segments go while the partition is larger than this; -1: no limit."),
    key("retention.ms", LONG_M1, "log.retention.ms", Medium, "Segments go when their newest record is older than this; -1: no limit."),
    key("segment.bytes", INT_1M, "log.segment.bytes", Medium, "A segment rolls before it exceeds this."),
    key("segment.index.bytes", Kind::Int { min: 4, max: i32::MAX as i64, }, "log.index.size.max.bytes", Medium, "Largest offset index of a segment."),
    key("segment.jitter.ms", LONG_0, "log.roll.jitter.ms", Medium, "Accepted; rolls are spread by the time of each partition's first record."),
    key("segment.ms", LONG_1, "log.roll.ms", Medium, "A segment rolls when a batch is this much newer than its first."),
    key("unclean.leader.election.enable", Kind::Boolean, "unclean.leader.election.enable", High, "Accepted until there is replication: whether a replica outside the in-sync set may lead when no other is left, losing records."),
    key("verify.compressed.records", Kind::Boolean, "verify.compressed.records", Low, "Decompress what producers send and check every record, as Kafka does; off: only header and checksum of compressed batches are checked."),
];

/// The topic-level key of this name.
pub fn topic(name: &str) -> Option<&'static TopicKey> {
    TOPIC.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    //! Every topic key that names a broker key names one that exists, with a default that the topic key takes too.
    use super::*;
    use crate::config::keys;

    #[test]
    fn broker_defaults_fit() {
        for key in TOPIC {
            let default = match key.broker_key {
                Some(name) => {
                    keys::broker(name)
                        .unwrap_or_else(|| panic!("{name}"))
                        .default
                }
                None => key.default,
            };
            if !default.is_empty() {
                assert_eq!(key.kind.check(default), Ok(()), "{}", key.name);
            }
        }
    }
}
