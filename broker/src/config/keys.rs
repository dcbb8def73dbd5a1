//! The one table of broker configuration keys: Kafka's `server.properties` names and meanings, and the few keys of our own.
//!
//! Start-up, DescribeConfigs, AlterConfigs and the documentation all read this table; a key that is not here does not exist. Every key here
//! is acted on, or its text says that it is only accepted, and why.

use super::kind::Kind;
use super::topic_keys::{CLEANUP, COMPRESSION, TIMESTAMP_TYPE};

/// When a change of a key takes effect (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only at the next start.
    ReadOnly,
    /// At once, for one broker or as the default of all.
    ClusterWide,
}

/// How much a key matters to somebody who reads the list for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Look at it before running.
    High,
    /// Look at it when tuning.
    Medium,
    /// Rarely touched.
    Low,
}

impl Importance {
    /// The word for it in documentation.
    pub fn name(self) -> &'static str {
        match self {
            Importance::High => "high",
            Importance::Medium => "medium",
            Importance::Low => "low",
        }
    }
}

/// One broker key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in `server.properties`.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// The default; empty: none.
    pub default: &'static str,
    /// When a change takes effect.
    pub update: Update,
    /// How much it matters.
    pub importance: Importance,
    /// What it does here.
    pub doc: &'static str,
}

use Importance::{High, Low, Medium};
use Update::{ClusterWide, ReadOnly};

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    update: Update,
    importance: Importance,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        update,
        importance,
        doc,
    }
}

const MAX: i64 = i32::MAX as i64;
const INT_0: Kind = Kind::Int { min: 0, max: MAX };
const INT_1: Kind = Kind::Int { min: 1, max: MAX };
const INT_M1: Kind = Kind::Int { min: -1, max: MAX };
const LONG_0: Kind = Kind::Long {
    min: 0,
    max: i64::MAX,
};
const LONG_1: Kind = Kind::Long {
    min: 1,
    max: i64::MAX,
};
const LONG_M1: Kind = Kind::Long {
    min: -1,
    max: i64::MAX,
};
const BYTES: Kind = Kind::Long {
    min: 1 << 20,
    max: 1 << 50,
};
/// From room for the few keys of one batch on.
const CLEANER_BYTES: Kind = Kind::Long {
    min: 1 << 10,
    max: 1 << 50,
};
const RATIO: Kind = Kind::Double { min: 0.0, max: 1.0 };
const NEVER: &str = "9223372036854775807";

/// Every broker key, sorted by name within each group.
#[rustfmt::skip]
pub const BROKER: &[Key] = &[
    // Who and where.
    key("advertised.listeners", Kind::List, "", ReadOnly, High, "What clients are told to connect to, as NAME://host:port; default: `listeners`, with the machine's name for a wildcard address."),
    key("broker.id", INT_M1, "", ReadOnly, High, "Older name of `node.id`."),
    key("broker.rack", Kind::Text, "", ReadOnly, Medium, "The rack this broker tells clients it stands in."),
    key("cluster.id", Kind::Text, "", ReadOnly, Low, "The cluster id that a new data directory is formatted with; default: random."),
    key("controller.listener.names", Kind::List, "", ReadOnly, Medium, "Which of `listeners` are for other controllers. There are none yet, so these are not opened, and no client is served there."),
    key("http.listener", Kind::Text, "127.0.0.1:9644", ReadOnly, Medium, "Where /metrics, /health/live and /health/ready are served, and / lists them; empty: nowhere."),
    key("listeners", Kind::List, "PLAINTEXT://127.0.0.1:9092", ReadOnly, High, "Where clients are served, as NAME://host:port; an empty host means every address, port 0 a free port."),
    key("log.dir", Kind::Text, "data", ReadOnly, High, "The data directory, when `log.dirs` is not set."),
    key("log.dirs", Kind::List, "", ReadOnly, High, "The data directories, separated by commas."),
    key("node.id", INT_0, "1", ReadOnly, High, "This broker's number, unique in its cluster."),
    key("process.roles", Kind::ListOf(&["broker", "controller"]), "broker,controller", ReadOnly, High, "What this process does; for now always both."),
    // Topics.
    key("auto.create.topics.enable", Kind::Boolean, "true", ReadOnly, High, "Whether a topic is made when a client first asks for it."),
    key("default.replication.factor", Kind::Int { min: 1, max: 32_767, }, "1", ReadOnly, Medium, "Replicas of a topic whose creator does not say."),
    key("delete.topic.enable", Kind::Boolean, "true", ReadOnly, High, "Whether topics can be deleted."),
    key("inter.broker.protocol.version", Kind::Text, "4.3-IV0", ReadOnly, Low, "Never changes; read by tools that ask what a broker can do."),
    key("max.partitions.per.broker", INT_1, "100000", ReadOnly, Low, "Most partitions this broker holds; creating more is refused."),
    key("max.partitions.per.request", INT_1, "10000", ReadOnly, Low, "Most partitions that one request may create or ask for."),
    key("metadata.log.max.record.bytes.between.snapshots", LONG_1, "20971520", ReadOnly, High, "Bytes of metadata log after which a snapshot is made, so that a start reads little more than that."),
    key("min.insync.replicas", INT_1, "1", ClusterWide, High, "In-sync replicas that must have a record before acks=all is answered."),
    key("num.partitions", INT_1, "1", ReadOnly, Medium, "Partitions of a topic whose creator does not say."),
    key("unclean.leader.election.enable", Kind::Boolean, "false", ClusterWide, High, "Accepted until there is replication: whether a replica outside the in-sync set may lead when no other is left, losing records."),
    // Logs.
    key("compression.type", COMPRESSION, "producer", ClusterWide, High, "Only `producer`, which keeps batches as they were sent: they are never compressed anew."),
    key("log.cleaner.backoff.ms", LONG_0, "15000", ReadOnly, Medium, "How long the cleaner rests when no compacted log is due."),
    key("log.cleaner.dedupe.buffer.size", CLEANER_BYTES, "134217728", ReadOnly, Medium, "Memory for keys, of all passes together: 39,321 keys a MiB. Half belongs to the shards in equal shares, the other half goes to passes that need more; what does not fit waits for the next pass."),
    key("log.cleaner.delete.retention.ms", LONG_0, "86400000", ClusterWide, Medium, "How long tombstones, and markers of transactions without records, stay after the log was first compacted up to them."),
    key("log.cleaner.enable", Kind::Boolean, "true", ReadOnly, Medium, "Whether compacted logs are compacted."),
    key("log.cleaner.io.buffer.size", INT_0, "524288", ReadOnly, Medium, "Memory for reading and writing while a log is compacted, shared among the shards; each takes 128 KiB at least."),
    key("log.cleaner.io.max.bytes.per.second", Kind::Double { min: 1.0, max: f64::MAX }, "1.7976931348623157E308", ReadOnly, Medium, "Most bytes a second that compaction reads and writes, shared among the shards."),
    key("log.cleaner.max.compaction.lag.ms", LONG_1, NEVER, ClusterWide, Medium, "A log is compacted, and its active segment rolls with the next record, when a record has waited longer."),
    key("log.cleaner.min.cleanable.ratio", RATIO, "0.5", ClusterWide, Medium, "A log is compacted when more than this share of it is not."),
    key("log.cleaner.min.compaction.lag.ms", LONG_0, "0", ClusterWide, Medium, "A record stays uncompacted for at least so long."),
    key("log.cleanup.policy", CLEANUP, "delete", ClusterWide, Medium, "What happens to old records: `delete` removes segments by time and size, `compact` keeps the last value of every key, both together do both."),
    key("log.flush.interval.messages", LONG_1, NEVER, ClusterWide, High, "Accepted, and always exceeded: every record is on the medium before it is acknowledged."),
    key("log.flush.interval.ms", LONG_0, NEVER, ClusterWide, High, "Accepted, and always exceeded: every record is on the medium before it is acknowledged."),
    key("log.index.interval.bytes", INT_0, "4096", ClusterWide, Medium, "Bytes of log between two entries of the offset index."),
    key("log.index.size.max.bytes", Kind::Int { min: 4, max: MAX }, "10485760", ClusterWide, Medium, "Largest offset index of a segment."),
    key("log.message.timestamp.after.max.ms", LONG_0, "3600000", ClusterWide, Medium, "How far in the future a record's timestamp may lie."),
    key("log.message.timestamp.before.max.ms", LONG_0, NEVER, ClusterWide, Medium, "How far in the past a record's timestamp may lie."),
    key("log.message.timestamp.type", TIMESTAMP_TYPE, "CreateTime", ClusterWide, Medium, "Whether records carry the producer's time or the broker's."),
    key("log.preallocate", Kind::Boolean, "false", ClusterWide, Medium, "Accepted; space is always reserved ahead of writing."),
    key("log.retention.bytes", LONG_M1, "-1", ClusterWide, High, "Oldest segments go while a partition is larger than this; -1: no limit."),
    key("log.retention.check.interval.ms", LONG_1, "300000", ReadOnly, Medium, "How often retention looks at the logs."),
    key("log.retention.hours", INT_M1, "168", ReadOnly, High, "Retention in hours, when neither `log.retention.ms` nor `log.retention.minutes` is set."),
    key("log.retention.minutes", INT_M1, "", ReadOnly, High, "Retention in minutes, when `log.retention.ms` is not set."),
    key("log.retention.ms", LONG_M1, "", ClusterWide, High, "Segments go when their newest record is older than this; -1: no limit."),
    key("log.roll.hours", INT_1, "168", ReadOnly, High, "`log.roll.ms` in hours, when that is not set."),
    key("log.roll.jitter.ms", LONG_0, "0", ClusterWide, Medium, "Accepted; rolls are spread by the time of each partition's first record."),
    key("log.roll.ms", LONG_1, "", ClusterWide, High, "A segment rolls when a batch is this much newer than its first."),
    key("log.segment.bytes", Kind::Int { min: 1024, max: MAX, }, "1073741824", ClusterWide, High, "A segment rolls before it exceeds this."),
    key("log.segment.delete.delay.ms", LONG_0, "60000", ReadOnly, High, "How long a removed segment keeps its bytes."),
    key("message.max.bytes", INT_0, "1048588", ClusterWide, High, "Largest record batch a topic takes, header included."),
    key("verify.compressed.records", Kind::Boolean, "true", ClusterWide, Low, "Decompress what producers send and check every record, as Kafka does."),
    key("batch.decompressed.bytes.max", Kind::Long { min: 1 << 16, max: 1 << 31, }, "67108864", ReadOnly, Low, "Most bytes that one compressed batch may decompress to while it is checked; a larger one is refused."),
    // Producers.
    key("producer.id.expiration.ms", INT_1, "86400000", ReadOnly, Low, "An idle producer id is forgotten after this long."),
    // Groups.
    key("group.consumer.assignment.interval.ms", INT_0, "1000", ReadOnly, Low, "A consumer group's assignment is made anew at most this often; 0: at once."),
    key("group.consumer.assignors", Kind::ListOf(&["uniform", "range"]), "uniform,range", ReadOnly, Medium, "How the coordinator of a consumer group may assign, the default first."),
    key("group.consumer.heartbeat.interval.ms", INT_1, "5000", ReadOnly, Medium, "How often members of consumer groups are told to heartbeat."),
    key("group.consumer.max.heartbeat.interval.ms", INT_1, "15000", ReadOnly, Medium, "Most of `group.consumer.heartbeat.interval.ms`."),
    key("group.consumer.max.session.timeout.ms", INT_1, "60000", ReadOnly, Medium, "Most of `group.consumer.session.timeout.ms`."),
    key("group.consumer.max.size", INT_1, "2147483647", ReadOnly, Medium, "Most members of a consumer group."),
    key("group.consumer.migration.policy", Kind::OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]), "bidirectional", ReadOnly, Medium, "Which way a group with members may change between the classic and the consumer protocol; one without members always may."),
    key("group.consumer.min.heartbeat.interval.ms", INT_1, "5000", ReadOnly, Medium, "Least of `group.consumer.heartbeat.interval.ms`."),
    key("group.consumer.min.session.timeout.ms", INT_1, "45000", ReadOnly, Medium, "Least of `group.consumer.session.timeout.ms`."),
    key("group.consumer.regex.refresh.interval.ms", INT_1, "600000", ReadOnly, Low, "How often subscriptions by regular expression are looked at even if no topic is known to have changed."),
    key("group.consumer.session.timeout.ms", INT_1, "45000", ReadOnly, Medium, "A member of a consumer group that is silent for this long is removed."),
    key("group.initial.rebalance.delay.ms", INT_0, "3000", ReadOnly, Medium, "How long the first generation of a classic group waits for more members to come."),
    key("group.max.session.timeout.ms", INT_0, "1800000", ReadOnly, Medium, "Longest session timeout that a member of a classic group may ask for."),
    key("group.max.size", INT_1, "2147483647", ReadOnly, Medium, "Most members of a classic group."),
    key("group.min.session.timeout.ms", INT_0, "6000", ReadOnly, Medium, "Shortest session timeout that a member of a classic group may ask for."),
    key("offset.metadata.max.bytes", INT_0, "4096", ReadOnly, High, "Longest text that may be stored with a committed offset."),
    key("offsets.retention.check.interval.ms", LONG_1, "600000", ReadOnly, High, "How often expired offsets and empty groups are looked for."),
    key("offsets.retention.minutes", INT_1, "10080", ReadOnly, High, "How long offsets stay after their group is empty, or, without a subscription, after they were committed."),
    key("offsets.topic.num.partitions", INT_1, "50", ReadOnly, High, "Partitions of `__consumer_offsets`, over which groups are spread; fixed once the topic is there."),
    key("offsets.topic.replication.factor", Kind::Int { min: 1, max: 32_767, }, "3", ReadOnly, High, "Replicas of `__consumer_offsets`; as many as there are brokers when those are fewer."),
    key("offsets.topic.segment.bytes", Kind::Int { min: 1024, max: MAX, }, "104857600", ReadOnly, High, "`segment.bytes` of `__consumer_offsets` when it is made."),
    // Transactions.
    key("transaction.max.timeout.ms", INT_1, "900000", ReadOnly, High, "Longest time that a producer may ask for before its open transaction is aborted."),
    key("transaction.remove.expired.transaction.cleanup.interval.ms", INT_1, "3600000", ReadOnly, Low, "How often transactional ids that have expired are looked for."),
    key("transaction.state.log.num.partitions", INT_1, "50", ReadOnly, High, "Partitions of `__transaction_state`, over which transactional ids are spread; fixed once the topic is there."),
    key("transaction.state.log.replication.factor", Kind::Int { min: 1, max: 32_767, }, "3", ReadOnly, High, "Replicas of `__transaction_state`; as many as there are brokers when those are fewer."),
    key("transaction.state.log.segment.bytes", Kind::Int { min: 1024, max: MAX, }, "104857600", ReadOnly, High, "`segment.bytes` of `__transaction_state` when it is made."),
    key("transactional.id.expiration.ms", INT_1, "604800000", ReadOnly, High, "A transactional id that is not used is forgotten after this long."),
    // Connections and requests.
    key("connections.max.idle.ms", LONG_M1, "600000", ReadOnly, Medium, "A connection without a request for this long is closed; -1: never."),
    key("fetch.max.bytes", Kind::Int { min: 1024, max: MAX, }, "57671680", ReadOnly, Medium, "Most bytes that one fetch is answered with, beyond its first batch."),
    key("max.connections", INT_1, "2147483647", ClusterWide, Medium, "Most client connections; more are closed at once. Never more than the limit of open files leaves beside the segments."),
    key("max.incremental.fetch.session.cache.slots", INT_0, "1000", ReadOnly, Medium, "Most fetch sessions (KIP-227) kept; more are served without a session."),
    key("max.in.flight.requests.per.connection", INT_1, "64", ReadOnly, Low, "Most requests of one connection in work; further ones stay in the socket."),
    key("max.request.partition.size.limit", INT_1, "2000", ReadOnly, Medium, "Most partitions in one answer of DescribeTopicPartitions."),
    key("socket.receive.buffer.bytes", INT_M1, "-1", ReadOnly, High, "The socket's SO_RCVBUF; -1: the system's choice."),
    key("socket.request.max.bytes", INT_1, "104857600", ReadOnly, High, "Largest request; a larger one closes its connection."),
    key("socket.send.buffer.bytes", INT_M1, "-1", ReadOnly, High, "The socket's SO_SNDBUF; -1: the system's choice."),
    // The engine.
    key("journal.bytes.max", BYTES, "536870912", ReadOnly, Medium, "Most bytes of journal files, shared among the shards; bounds the work after a crash."),
    key("journal.dir", Kind::Text, "", ReadOnly, Medium, "Where journals live, best a fast device; default: the first data directory."),
    key("memory.request.bytes", BYTES, "67108864", ReadOnly, Medium, "Most bytes of requests held in memory, shared among the shards; further ones stay in their sockets."),
    key("memory.response.bytes", BYTES, "134217728", ReadOnly, Medium, "Most bytes of fetched batches held until their responses are sent, shared among the shards; when little is left, fetches are answered with less."),
    key("memory.tail.cache.bytes", BYTES, "134217728", ReadOnly, High, "Most bytes of recent batches held in memory, shared among the shards; up to a quarter more is kept for those to come."),
    key("shards", INT_0, "0", ReadOnly, High, "Threads that own partitions, and do all work for them; 0: one for each core, or as the cgroup's quota allows, but one core is left to the kernel and to others; at least one."),
    key("shard.mailbox.slots", Kind::Int { min: 8, max: 65_536, }, "1024", ReadOnly, Low, "Messages a shard's mailbox holds; senders wait while it is full."),
];

/// The broker key of this name.
pub fn broker(name: &str) -> Option<&'static Key> {
    BROKER.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    //! Defaults keep their own bounds, and no key is there twice.
    use super::*;

    #[test]
    fn defaults_fit_and_names_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for key in BROKER {
            assert!(seen.insert(key.name), "{} is there twice", key.name);
            if !key.default.is_empty() {
                assert_eq!(key.kind.check(key.default), Ok(()), "{}", key.name);
            }
        }
    }
}
