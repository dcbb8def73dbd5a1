"""Kafka Connect as its own worker program, distributed mode: a file becomes a topic and a file again, across a kill of the worker.

The source writes exactly once (KIP-618): its records and its place in the file are one transaction. The sink's places are a group's offsets."""
import signal
import time

from suite.checks import equal
from suite.driver import decode
from suite.service import TERMINATED, Service

LINES = 100
INTERNAL = ("config", "offset", "status")


class Worker(Service):
    """One Connect worker, which is all of its cluster; its state is in three topics and nowhere else."""

    def __init__(self, bootstrap, libs, directory, name):
        super().__init__(name, directory)
        self.libs, self.properties = libs, directory / f"{name}.properties"
        settings = {
            "bootstrap.servers": bootstrap, "group.id": name, "listeners": f"http://127.0.0.1:{self.port}", "plugin.discovery": "service_load",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter", "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "exactly.once.source.support": "enabled", "offset.flush.interval.ms": 1000, "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000,
            "scheduled.rebalance.max.delay.ms": 0, "offset.storage.partitions": 3, "status.storage.partitions": 2,
            **{f"{part}.storage.topic": self.topic(part) for part in INTERNAL}, **{f"{part}.storage.replication.factor": 1 for part in INTERNAL}}
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def command(self):
        return ["-Xmx256M", "-Dlog4j2.level=WARN", "-cp", f"{self.libs}/*", "org.apache.kafka.connect.cli.ConnectDistributed", str(self.properties)]

    def topic(self, part):
        return f"{self.name}-{part}"


def lines(first, last):
    return [f"line {number}" for number in range(first, last)]


def pipeline(session, libs):
    """Nothing is lost or repeated across kill -9: the source's transactions see to that in the topic, the sink's commits in the file."""
    topic, directory = session.topic(1), session.pool.directory
    worker = Worker(session.pool.bootstrap, libs, directory, session.name())
    source, sink = directory / f"{worker.name}-in.txt", directory / f"{worker.name}-out.txt"

    def write(first, last):
        with open(source, "a") as file:
            file.write("".join(f"{line}\n" for line in lines(first, last)))

    def arrived():
        return sink.read_text().splitlines() if sink.exists() else []

    def records(count):
        return session.steward.call("consume", topic=topic, partition=0, offset="earliest", count=count, timeout_ms=3000, isolation="read_committed")

    def until_arrived(last):
        worker.until(f"line {last - 1} arrives", lambda: f"line {last - 1}" in arrived() or f"{len(arrived())} lines")

    try:
        write(0, LINES)
        worker.start()
        worker.until("the worker answers", lambda: worker.call("GET", "/connectors") == [])
        worker.call("POST", "/connectors", {"name": f"{worker.name}-source", "config": {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "tasks.max": "1", "file": str(source), "topic": topic}})
        worker.call("POST", "/connectors", {"name": f"{worker.name}-sink", "config": {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1", "file": str(sink), "topics": topic,
            "consumer.override.isolation.level": "read_committed"}})
        until_arrived(LINES)
        for part in INTERNAL:
            equal(session.steward.call("describe_configs", topic=worker.topic(part))["cleanup.policy"], "compact", f"cleanup.policy of the {part} topic")
        read = records(LINES)
        worker.until("the sink has committed what it wrote", lambda: session.committed(f"connect-{worker.name}-sink", topic, 0) >= read[-1]["o"] + 1)
        worker.end(signal.SIGKILL)
        write(LINES, 2 * LINES)
        worker.start()
        until_arrived(2 * LINES)
        equal(arrived(), lines(0, 2 * LINES), "lines across a kill")
        equal(worker.end(signal.SIGTERM), TERMINATED, "exit status after SIGTERM")
    finally:
        worker.end(signal.SIGKILL)
    equal([decode(one["v"]).decode() for one in records(2 * LINES + 1)], lines(0, 2 * LINES), "records of the topic across a kill")
