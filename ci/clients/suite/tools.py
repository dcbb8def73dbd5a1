"""Kafka's own command-line tools, each run as an administrator would."""
import pathlib
import re
import subprocess

from suite.checks import equal, eventually

TOOL = pathlib.Path(__file__).resolve().parent.parent.parent / "kafka" / "tool"


def run(name, *arguments, stdin=None, fails=False, timeout=90):
    """The tool's standard output; its exit status must be zero, or with `fails` another. Errors it logs count as complaints.
    With `fails=None` the tool may end either way, and what it said of the failure is in the answer."""
    done = subprocess.run([TOOL, name, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout)
    out, complaint = done.stdout.decode(), done.stderr.decode()
    if fails is None:
        return out + complaint
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{name} ended with status {done.returncode}: {out} {complaint}")
    if not fails and re.search(r"\b(ERROR|Exception)\b", complaint):
        raise AssertionError(f"{name} complained: {complaint}")
    return out + complaint if fails else out


def contains(text, *parts):
    for part in parts:
        if not re.search(part, text, re.M):
            raise AssertionError(f"no {part!r} in: {text}")


class Tools:
    """The checks share one topic; each can also run alone, for it asks only for what `prepare` made."""

    def __init__(self, bootstrap, steward, run_id):
        self.server, self.steward, self.run_id = ["--bootstrap-server", bootstrap], steward, run_id
        self.bootstrap, self.number = bootstrap, 0

    def name(self):
        self.number += 1
        return f"tools-{self.run_id}-{self.number}"

    def topic(self, partitions=1, **configs):
        name = self.name()
        self.steward.call("create_topic", topic=name, partitions=partitions, configs=configs)
        for partition in range(partitions):
            eventually(lambda: self.steward.call("watermarks", topic=name, partition=partition))
        return name

    def filled(self, count=10, partitions=1):
        topic = self.topic(partitions)
        for partition in range(partitions):
            self.steward.call("produce_bulk", topic=topic, partition=partition, count=count, bytes=100, compression="none", idempotent=False)
        return topic

    def topics(self):
        topic = self.name()
        contains(run("kafka-topics", *self.server, "--create", "--topic", topic, "--partitions", 3, "--config", "retention.ms=3600000"), f"Created topic {topic}")
        contains(run("kafka-topics", *self.server, "--list"), f"^{topic}$")
        described = run("kafka-topics", *self.server, "--describe", "--topic", topic)
        contains(described, r"TopicId: \S{22}", "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=3600000",
                 r"Partition: 2\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+")
        run("kafka-topics", *self.server, "--alter", "--topic", topic, "--partitions", 5)
        contains(run("kafka-topics", *self.server, "--describe", "--topic", topic), "PartitionCount: 5", r"Partition: 4\s+Leader: \d+")
        run("kafka-topics", *self.server, "--delete", "--topic", topic)
        eventually(lambda: equal(topic in run("kafka-topics", *self.server, "--list"), False, "deleted topic is listed"))

    def topics_refused(self):
        topic = self.topic(2)
        contains(run("kafka-topics", *self.server, "--create", "--topic", topic, fails=True), "TopicExistsException")
        contains(run("kafka-topics", *self.server, "--describe", "--topic", self.name(), fails=True), "does not exist")
        contains(run("kafka-topics", *self.server, "--alter", "--topic", topic, "--partitions", 1, fails=True), "InvalidPartitions")

    def topic_configs(self):
        topic = self.topic()
        entity = ["--entity-type", "topics", "--entity-name", topic]
        run("kafka-configs", *self.server, *entity, "--alter", "--add-config", "max.message.bytes=30000,cleanup.policy=[compact,delete]")
        contains(run("kafka-configs", *self.server, *entity, "--describe"), r"max\.message\.bytes=30000 sensitive=false", "cleanup.policy=compact,delete")
        contains(run("kafka-configs", *self.server, *entity, "--describe", "--all"), "max.message.bytes=30000", "retention.ms=604800000", "segment.bytes=1073741824")
        run("kafka-configs", *self.server, *entity, "--alter", "--delete-config", "max.message.bytes")
        described = run("kafka-configs", *self.server, *entity, "--describe")
        contains(described, "cleanup.policy=compact,delete")
        equal("max.message.bytes" in described, False, "a deleted config is described")
        contains(run("kafka-configs", *self.server, *entity, "--alter", "--add-config", "retention.ms=soon", fails=True), "InvalidConfiguration")

    def broker_configs(self):
        broker = re.search(r"id: (\d+)", run("kafka-broker-api-versions", *self.server))[1]
        entity = ["--entity-type", "brokers", "--entity-name", broker]
        contains(run("kafka-configs", *self.server, *entity, "--describe", "--all"), "log.retention.hours=168", "num.partitions=1", "message.max.bytes=1048588")
        run("kafka-configs", *self.server, *entity, "--alter", "--add-config", "message.max.bytes=2000000")
        contains(run("kafka-configs", *self.server, *entity, "--describe"), "message.max.bytes=2000000")
        contains(run("kafka-configs", *self.server, "--entity-type", "topics", "--entity-name", self.topic(), "--describe", "--all"), "max.message.bytes=2000000")
        run("kafka-configs", *self.server, *entity, "--alter", "--delete-config", "message.max.bytes")
        equal("message.max.bytes=2000000" in run("kafka-configs", *self.server, *entity, "--describe"), False, "a deleted config is described")

    def default_broker_configs(self):
        entity = ["--entity-type", "brokers", "--entity-default"]
        run("kafka-configs", *self.server, *entity, "--alter", "--add-config", "log.retention.ms=7200000")
        contains(run("kafka-configs", *self.server, *entity, "--describe"), "log.retention.ms=7200000")
        run("kafka-configs", *self.server, *entity, "--alter", "--delete-config", "log.retention.ms")

    def get_offsets(self):
        topic = self.filled(10, partitions=2)
        ask = lambda *more: sorted(run("kafka-get-offsets", *self.server, "--topic", topic, *more).split())
        equal(ask(), [f"{topic}:0:10", f"{topic}:1:10"], "latest offsets")
        equal(ask("--time", "earliest"), [f"{topic}:0:0", f"{topic}:1:0"], "earliest offsets")
        equal(ask("--time", "max-timestamp", "--partitions", 1)[0].rsplit(":", 1)[0], f"{topic}:1", "offset of the largest timestamp")
        equal(ask("--time", 1000, "--partitions", 0), [f"{topic}:0:0"], "offset at the time 1000")

    def delete_records(self):
        topic = self.filled(10)
        offsets = pathlib.Path(self.directory) / "delete.json"
        offsets.write_text('{"version": 1, "partitions": [{"topic": "%s", "partition": 0, "offset": 4}]}' % topic)
        contains(run("kafka-delete-records", *self.server, "--offset-json-file", offsets), rf"{topic}-0\s+low_watermark: 4")
        equal(run("kafka-get-offsets", *self.server, "--topic", topic, "--time", "earliest").strip(), f"{topic}:0:4", "earliest offset")

    def log_dirs(self):
        topic = self.filled(10)
        described = run("kafka-log-dirs", *self.server, "--describe", "--topic-list", topic)
        contains(described, rf'"partition":"{topic}-0"', '"error":null')
        if int(re.search(r'"size":(\d+)', described)[1]) < 1000:
            raise AssertionError(f"the size of 10 records of 100 bytes: {described}")

    def console(self):
        topic = self.topic(2)
        run("kafka-console-producer", *self.server, "--topic", topic, "--reader-property", "parse.key=true", "--reader-property", "key.separator=:",
            "--reader-property", "parse.headers=true", "--compression-codec", "zstd", stdin="h:1\tk:größe\nh:2\tk:second\nh:3\tk:third\n".encode())
        found = []
        for partition in (0, 1):
            count = self.steward.call("watermarks", topic=topic, partition=partition)[1]
            if count:
                found += run("kafka-console-consumer", *self.server, "--topic", topic, "--partition", partition, "--offset", "earliest", "--max-messages", count,
                             "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
                             "--formatter-property", "print.offset=true").splitlines()
        equal(found, ["Offset:0\th:1\tk\tgröße", "Offset:1\th:2\tk\tsecond", "Offset:2\th:3\tk\tthird"], "lines")
        equal(run("kafka-console-consumer", *self.server, "--topic", topic, "--partition", 0 if self.steward.call("watermarks", topic=topic, partition=0)[1] else 1,
                  "--offset", 2, "--max-messages", 1).strip(), "third", "line at offset 2")

    def producer_performance(self):
        topic = self.topic(3)
        out = run("kafka-producer-perf-test", "--topic", topic, "--num-records", 30000, "--record-size", 500, "--throughput", -1,
                  "--bootstrap-server", self.bootstrap, "--command-property", "compression.type=lz4")
        contains(out, "^30000 records sent")
        equal(sum(self.steward.call("watermarks", topic=topic, partition=partition)[1] for partition in range(3)), 30000, "records in the topic")

    def cluster(self):
        contains(run("kafka-cluster", "cluster-id", *self.server), r"Cluster ID: \S{22}")

    def api_versions(self):
        out = run("kafka-broker-api-versions", *self.server)
        contains(out, r"^\S+:\d+ \(id: \d+ rack: \S+ isFenced: false\) -> \(", r"Produce\(0\): 0 to \d+ \[usable: \d+\]", r"Fetch\(1\): 4 to 1\d")

    CHECKS = [("kafka-topics: create, list, describe, alter, delete", topics), ("kafka-topics: what must be refused", topics_refused),
              ("kafka-configs of a topic", topic_configs), ("kafka-configs of a broker", broker_configs),
              ("kafka-configs of all brokers", default_broker_configs), ("kafka-get-offsets", get_offsets),
              ("kafka-delete-records", delete_records), ("kafka-log-dirs", log_dirs), ("kafka-console-producer and -consumer", console),
              ("kafka-producer-perf-test", producer_performance), ("kafka-cluster", cluster), ("kafka-broker-api-versions", api_versions)]

    def run(self, report, directory, only_checks):
        self.directory = directory
        for name, function in self.CHECKS:
            if not only_checks or any(part in name for part in only_checks):
                report.check("tools", name, lambda: function(self))
