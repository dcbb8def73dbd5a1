//! Kafka's keys that do nothing here, each with the reason: a `server.properties` that is brought along names many of them.
//!
//! Only a table. A key stands here when ignoring it is right or at worst a wish that is not met; one that asks for protection is refused
//! (`security.rs`), and one that is in no table is unknown.

/// Keys that do nothing here for the same reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Their names; one that ends in a dot stands for all that begin with it.
    names: &'static [&'static str],
    /// Whether somebody who sets them expects something that is not offered yet; else there is nothing for them to set.
    pub missing: bool,
    /// Why they do nothing, to be read after "has no effect, because".
    pub because: &'static str,
}

const fn moot(names: &'static [&'static str], because: &'static str) -> Foreign {
    Foreign {
        names,
        missing: false,
        because,
    }
}

const fn missing(names: &'static [&'static str], because: &'static str) -> Foreign {
    Foreign {
        names,
        missing: true,
        because,
    }
}

#[rustfmt::skip]
const FOREIGN: &[Foreign] = &[
    // How work is divided.
    moot(&["num.io.threads", "num.network.threads", "background.threads", "group.coordinator.threads", "group.coordinator.background.threads"],
        "one thread a core does all the work of its connections and partitions; `shards` says how many"),
    moot(&["queued.max.requests", "queued.max.request.bytes"],
        "requests do not queue between threads; `memory.request.bytes` and `max.in.flight.requests.per.connection` bound them"),
    moot(&["fetch.purgatory.purge.interval.requests", "producer.purgatory.purge.interval.requests", "delete.records.purgatory.purge.interval.requests"],
        "a request that waits is forgotten as soon as it is answered"),
    moot(&["socket.listen.backlog.size"], "connections are accepted at once, and the backlog has a fixed length"),
    // Logs.
    moot(&["num.recovery.threads.per.data.dir"], "every shard recovers its own partitions from its journal, all shards at once"),
    moot(&["log.flush.scheduler.interval.ms", "log.flush.offset.checkpoint.interval.ms", "log.flush.start.offset.checkpoint.interval.ms"],
        "every record is on the medium before it is acknowledged, and checkpoints follow the journal"),
    moot(&["log.cleaner.threads"], "every shard compacts its own partitions"),
    moot(&["log.cleaner.io.buffer.load.factor"], "the map of keys is always filled to nine tenths"),
    moot(&["log.roll.jitter.hours"], "rolls are spread by the time of each partition's first record"),
    moot(&["compression.gzip.level", "compression.lz4.level", "compression.zstd.level"], "batches are stored as producers compressed them"),
    missing(&["metadata.log.dir"], "the metadata log is in the first data directory"),
    missing(&["cordoned.log.dirs"], "new partitions may go to every data directory"),
    missing(&["remote.", "log.local.retention.bytes", "log.local.retention.ms", "follower.fetch.last.tiered.offset.enable"], "tiered storage is not offered"),
    moot(&["metadata.log.segment.bytes", "metadata.log.segment.ms", "metadata.log.max.snapshot.interval.ms", "metadata.max.retention.bytes", "metadata.max.retention.ms", "metadata.max.idle.interval.ms"],
        "the metadata log is kept short by its snapshots; `metadata.log.max.record.bytes.between.snapshots` says how short"),
    // Groups and transactions.
    moot(&["group.coordinator.append.linger.ms", "group.coordinator.cached.buffer.max.bytes", "offsets.commit.timeout.ms"],
        "what comes to a coordinator while it writes is written together next"),
    moot(&["offsets.load.buffer.size", "transaction.state.log.load.buffer.size"], "coordinators load with buffers of a fixed size"),
    moot(&["offsets.topic.compression.codec"], "committed offsets are stored uncompressed"),
    moot(&["group.coordinator.rebalance.protocols"], "the classic and the consumer protocol are always offered"),
    moot(&["group.consumer.min.assignment.interval.ms", "group.consumer.max.assignment.interval.ms"], "groups have no configuration of their own that these could bound"),
    moot(&["transaction.abort.timed.out.transaction.cleanup.interval.ms"], "every transaction is aborted when its own time is over"),
    moot(&["transaction.partition.verification.enable"], "a batch that opens a transaction is always verified"),
    moot(&["add.partitions.to.txn.retry.backoff.ms", "add.partitions.to.txn.retry.backoff.max.ms"], "a producer's next request waits until its last transaction has ended"),
    missing(&["transaction.two.phase.commit.enable"], "two-phase commit is not offered"),
    missing(&["group.share.", "share."], "share groups are not offered yet"),
    missing(&["group.streams."], "groups of the Streams protocol are not offered yet"),
    // Other brokers.
    moot(&["controller.", "broker.heartbeat.interval.ms", "broker.session.timeout.ms", "initial.broker.registration.timeout.ms", "inter.broker.listener.name", "early.start.listeners",
           "controlled.shutdown.enable", "auto.leader.rebalance.enable", "leader.imbalance.check.interval.seconds", "replica.", "replication.quota.", "num.replica.fetchers", "transaction.state.log.min.isr",
           "request.timeout.ms", "socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms", "log.dir.failure.timeout.ms"],
        "this broker is its own controller and there are no others yet"),
    missing(&["num.replica.alter.log.dirs.threads", "alter.log.dirs.replication.quota."], "partitions do not move between data directories"),
    // Who may do how much.
    missing(&["quota.", "client.quota.callback.class", "controller.quota."], "quotas are not offered yet"),
    missing(&["max.connections.per.ip", "max.connections.per.ip.overrides", "max.connection.creation.rate"], "connections are limited by `max.connections` alone"),
    moot(&["ssl.", "security.providers"], "no listener uses TLS, which is not offered yet"),
    moot(&["principal.builder.class", "super.users", "allow.everyone.if.no.acl.found", "delegation.token.", "connections.max.reauth.ms", "connection.failed.authentication.delay.ms"],
        "there is no authentication and no authorizer yet"),
    // Being watched.
    missing(&["metric.reporters", "kafka.metrics."], "reporters are Java classes; metrics are at /metrics on `http.listener`"),
    moot(&["metrics.", "auto.include.jmx.reporter"], "metrics are counters and histograms at /metrics on `http.listener`"),
    moot(&["telemetry.max.bytes"], "client metrics are not collected"),
    // What old files have.
    moot(&["zookeeper.", "control.plane.listener.name", "broker.id.generation.enable", "reserved.broker.max.id"], "there is no ZooKeeper: this broker keeps the cluster's metadata itself, as Kafka does since 4.0"),
    moot(&["log.message.format.version", "log.message.downconversion.enable"], "all records have format version 2, as in Kafka since 4.0"),
];

/// Kafka's key of this name that does nothing here; an exact name goes before one that begins the same.
pub fn foreign(name: &str) -> Option<&'static Foreign> {
    let exact = |key: &&Foreign| key.names.contains(&name);
    let begins = |key: &&Foreign| {
        key.names
            .iter()
            .any(|known| known.ends_with('.') && name.starts_with(known))
    };
    let longest = |key: &&'static Foreign| {
        let known = key.names.iter().filter(|known| name.starts_with(**known));
        known.map(|known| known.len()).max()
    };
    FOREIGN
        .iter()
        .find(exact)
        .or_else(|| FOREIGN.iter().filter(begins).max_by_key(longest))
}

#[cfg(test)]
mod tests {
    //! No key stands in two tables, and the nearest reason is given.
    use super::*;
    use crate::config::keys;

    #[test]
    fn each_key_has_one_place() {
        let mut seen = std::collections::BTreeSet::new();
        for name in FOREIGN.iter().flat_map(|key| key.names) {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(keys::broker(name).is_none(), "{name} is acted on");
        }
    }

    #[test]
    fn the_nearest_reason_is_given() {
        let because = |name| foreign(name).map(|key| key.because);
        assert!(because("num.io.threads").unwrap().contains("`shards`"));
        assert!(
            because("controller.quota.window.num")
                .unwrap()
                .contains("quotas")
        );
        assert!(
            because("controller.quorum.fetch.timeout.ms")
                .unwrap()
                .contains("its own controller")
        );
        assert!(
            because("remote.log.storage.system.enable")
                .unwrap()
                .contains("tiered")
        );
        assert_eq!(because("num.partition"), None);
        assert_eq!(because("sslx"), None);
    }
}
