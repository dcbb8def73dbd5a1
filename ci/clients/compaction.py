"""Compaction as users have it: what stays is every key's last value, every group's last offsets and every transactional id, no more and no less.

Each round writes keyed records (every codec, tombstones, transactions that commit and abort), commits offsets and deletes groups, and lets
transactional producers work, all again and again over few keys and in small segments. Then the broker is stopped, started and waited for until it
has nothing left to compact; killed -9 in the middle of more of the same; started; and compared with what was acknowledged. In the end it stops cleanly
and Kafka's dump tool reads every file of the compacted logs.
"""
import argparse
import io
import pathlib
import random
import re
import shutil
import socket
import struct
import sys
import tempfile
import time
import traceback
import urllib.request

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from suite.broker import CannotStart, Ringlog
from suite.dump import dump

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50}
TOPIC, KEYS, CODECS = "compacted", 60, ("none", "gzip", "snappy", "lz4", "zstd")
GROUPS, PARTITIONS, IDS = 12, 4, 6
PATIENCE_S = 60
SETTINGS = ("log.segment.bytes=32768", "log.index.interval.bytes=512", "log.cleaner.backoff.ms=50", "log.cleaner.min.cleanable.ratio=0.01", "log.cleaner.delete.retention.ms=300",
            "offsets.topic.num.partitions=2", "offsets.topic.segment.bytes=4096", "transaction.state.log.num.partitions=2", "transaction.state.log.segment.bytes=1024")


def metric(broker, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)]


class Model:
    """What was acknowledged."""

    def __init__(self):
        self.values, self.offsets, self.states = {}, {}, {}


class Work:
    """One stretch of clients' work; everything is acknowledged when a step returns."""

    def __init__(self, broker, model, numbers):
        self.broker, self.model, self.numbers = broker, model, numbers
        self.plain = {codec: self.producer(codec) for codec in CODECS}
        self.transactional = {}

    def producer(self, codec, **more):
        return Producer({"bootstrap.servers": self.broker.bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 2, "batch.num.messages": 20, **QUIET, **more})

    def records(self, producer, commits=True):
        wrote, failed = {}, []
        for _ in range(self.numbers.randrange(1, 40)):
            key = f"key-{self.numbers.randrange(KEYS)}"
            value = None if self.numbers.random() < 0.15 else f"{key} {self.numbers.random()} ".encode() * self.numbers.randrange(1, 30)
            producer.produce(TOPIC, key=key, value=value, on_delivery=lambda error, _: error and failed.append(str(error)))
            wrote[key] = value
        left = producer.flush(30)
        if left or failed:
            raise AssertionError(f"{left} records were not acknowledged, {failed[:1]}")
        if commits:
            self.model.values.update(wrote)

    def transaction(self):
        id = f"id-{self.numbers.randrange(IDS)}"
        if id not in self.transactional or self.numbers.random() < 0.1:
            self.transactional[id] = self.producer(self.numbers.choice(CODECS), **{"transactional.id": id})
            self.transactional[id].init_transactions(30)
        producer, commits = self.transactional[id], self.numbers.random() < 0.6
        producer.begin_transaction()
        self.records(producer, commits)
        producer.commit_transaction(30) if commits else producer.abort_transaction(30)
        self.model.states[id] = "CompleteCommit" if commits else "CompleteAbort"

    def offsets(self):
        group = f"group-{self.numbers.randrange(GROUPS)}"
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": group, "enable.auto.commit": False, **QUIET})
        for _ in range(self.numbers.randrange(1, 12)):
            partition, offset = self.numbers.randrange(PARTITIONS), self.numbers.randrange(1 << 40)
            consumer.commit(offsets=[TopicPartition("offsets", partition, offset, metadata="m" * 100)], asynchronous=False)
            self.model.offsets.setdefault(group, {})[partition] = offset
        consumer.close()

    def forget(self):
        group = self.numbers.choice(sorted(self.model.offsets) or [None])
        if group:
            client = admin(self.broker)
            for future in client.delete_consumer_groups([group], request_timeout=30).values():
                future.result(30)
            del self.model.offsets[group]

    def stretch(self, steps):
        for _ in range(steps):
            step = self.numbers.choices([self.transaction, self.offsets, self.forget, None], [3, 5, 0.3, 5])[0]
            step() if step else self.records(self.plain[self.numbers.choice(CODECS)])


def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})


def patiently(what, check):
    """Until `check` answers without an error, for a coordinator may still be loading."""
    patience = time.monotonic() + PATIENCE_S
    while True:
        try:
            return check()
        except (KafkaException, AssertionError) as error:
            if time.monotonic() > patience:
                raise AssertionError(f"{what}: {error}") from error
            time.sleep(0.2)


def read_all(broker):
    """The last value of each key, as a consumer of committed records has it in the end."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "reader", "enable.auto.commit": False, "isolation.level": "read_committed",
                         "enable.partition.eof": True, "check.crcs": True, **QUIET})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    found, count, patience = {}, 0, time.monotonic() + PATIENCE_S
    while time.monotonic() < patience:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            if message.error().name() == "_PARTITION_EOF":
                consumer.close()
                return found, count
            raise AssertionError(str(message.error()))
        found[message.key().decode()], count = message.value(), count + 1
    raise AssertionError("the compacted topic has no end")


def states_of_transactions(broker):
    """ListTransactions, version 0, without filters: by hand, because librdkafka does not offer it and a JVM for every look takes longer than all else here."""
    request = struct.pack(">hhih", 66, 0, 1, -1) + b"\0" + b"\1\1\0"
    with socket.create_connection(("127.0.0.1", broker.port), timeout=PATIENCE_S) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = io.BytesIO(answers.read(*struct.unpack(">i", answers.read(4))))
    take = lambda layout: struct.unpack(layout, answer.read(struct.calcsize(layout)))  # noqa: E731
    correlation, _, _, error, unknown, count = take(">ibihBB")
    if (correlation, error, unknown) != (1, 0, 1) or count >= 128:
        raise AssertionError(f"ListTransactions is answered with {answer.getvalue()[:60]}")
    found = {}
    for _ in range(count - 1):
        id = answer.read(take("B")[0] - 1).decode()
        take(">q")
        found[id] = answer.read(take("B")[0] - 1).decode()
        take("B")
    return found


def compare(broker, model, when):
    def same(what, found, expected):
        wrong = {name: (found.get(name), expected.get(name)) for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
        if wrong:
            raise AssertionError(f"{when}, {what}: {len(wrong)} differ, found and expected of some: {str(sorted(wrong.items())[:4])[:600]}")

    found, count = read_all(broker)
    same("values", {key: value for key, value in found.items() if value is not None}, {key: value for key, value in model.values.items() if value is not None})

    def offsets():
        groups = {f"group-{number}": {} for number in range(GROUPS)}
        client = admin(broker)
        for group in groups:
            answer = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=30)[group].result(30)
            groups[group] = {one.partition: one.offset for one in answer.topic_partitions if one.error is None and one.offset >= 0}
        return groups

    same("offsets", patiently("offsets", offsets), {f"group-{number}": {} for number in range(GROUPS)} | model.offsets)

    found_states = patiently("transactions", lambda: states_of_transactions(broker))
    # A producer that has only begun anew is Empty.
    same("transactional ids", {id: "" for id in found_states}, {id: "" for id in model.states})
    same("states of transactions", {id: state for id, state in found_states.items() if state != "Empty"}, {id: state for id, state in model.states.items() if found_states.get(id) != "Empty"})
    return count


def settle(broker, least=0):
    """Waits until nothing is left to compact, after so many passes at least; answers the passes."""
    patience, last, since = time.monotonic() + PATIENCE_S, None, time.monotonic()
    while time.monotonic() < patience:
        now = metric(broker, "ringlog_cleaner_passes_total")
        if now != last:
            last, since = now, time.monotonic()
        elif sum(now) >= least and time.monotonic() - since > 1.5:
            if sum(metric(broker, "ringlog_cleaner_uncleanable_partitions")):
                raise AssertionError("a partition cannot be compacted; the broker's log says why")
            return int(sum(now))
        time.sleep(0.1)
    raise AssertionError("compaction has no end")


def one_round(broker, model, numbers):
    Work(broker, model, numbers).stretch(60)
    passes = 0
    # A stop makes everything but the active segments eligible; the second time delete horizons have passed.
    for least in (2, 0):
        if broker.stop() != 0:
            raise AssertionError("the broker does not stop cleanly")
        broker.start()
        passes += settle(broker, least)
        compare(broker, model, "after compaction")
        Work(broker, model, numbers).stretch(10)
        time.sleep(0.4)
    Work(broker, model, numbers).stretch(20)
    broker.kill()
    broker.start()
    count = compare(broker, model, "after kill -9")
    broker.kill()  # in the middle of compacting, perhaps
    broker.start()
    compare(broker, model, "after a second kill -9")
    return f"{passes} passes, {count} records left, {len(model.offsets)} groups"


def last_round(broker, model):
    """Once more compacted and stopped; then the tool on every file."""
    broker.stop()
    broker.start()
    settle(broker)
    if broker.stop() != 0:
        raise AssertionError("the broker does not stop cleanly")
    seen, files = {"codecs": set(), "tombstones": 0, "markers": 0, "gaps": 0, "indexes": 0}, []
    for folder in sorted(broker.data.iterdir()):
        decoder = {"__consumer_offsets": "--offsets-decoder", "__transaction_state": "--transaction-log-decoder"}.get(folder.name.rsplit("-", 1)[0])
        if decoder is None and folder.name != f"{TOPIC}-0":
            continue
        found = sorted(file for file in folder.iterdir() if file.is_file() and file.stat().st_size)
        left = [file.name for file in found if file.suffix in (".cleaned", ".swap")]
        if left:
            raise AssertionError(f"{folder.name} still has {left}")
        logs = ",".join(str(file) for file in found if file.suffix == ".log")
        count_in(seen, dump("--files", logs, decoder or "--print-data-log", compacted=True))
        files += found
    indexes, others = (",".join(str(file) for file in files if file.suffix in endings) for endings in ((".index", ".timeindex"), (".txnindex", ".snapshot")))
    seen["indexes"] = indexes.count(".timeindex")
    dump("--files", indexes, "--index-sanity-check", compacted=True)
    dump("--files", indexes, "--verify-index-only", compacted=True)
    dump("--files", others)
    # Which codecs are left after compaction is chance; none but one would be a strange one.
    wrong = [what for what, count in seen.items() if not count] + sorted(set(CODECS) - seen["codecs"] if len(seen["codecs"]) < 2 else [])
    if wrong:
        raise AssertionError(f"nothing that the tool could refuse: {wrong} in none of the compacted files")
    return f"the tool read {seen}"


def count_in(seen, out):
    seen["codecs"] |= set(re.findall(r"compresscodec: (\S+)", out))
    seen["tombstones"] += len(re.findall(r"valueSize: -1", out))
    seen["markers"] += len(re.findall(r"endTxnMarker: ", out))
    ends = [(int(first), int(last)) for first, last in re.findall(r"^baseOffset: (\d+) lastOffset: (\d+)", out, re.M)]
    seen["gaps"] += sum(first > last + 1 for (_, last), (first, _) in zip(ends, ends[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="decides every choice")
    parser.add_argument("--program", default=ROOT / "target/release/ringlog", help="the ringlog to start")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="a setting for the ringlog that is started")
    parser.add_argument("--keep", action="store_true", help="keep data and logs also when every round passes")
    options = parser.parse_args()
    work = ROOT / "target/clients"
    work.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="compaction-", dir=work))
    broker, failed = Ringlog(options.program, directory, (*SETTINGS, *options.override)), 1
    print(f"seed {options.seed}; data and logs in {directory.relative_to(ROOT)}", flush=True)
    try:
        broker.start()
        model, numbers = Model(), random.Random(options.seed)
        topics = [NewTopic(TOPIC, 1, config={"cleanup.policy": "compact"}), NewTopic("offsets", PARTITIONS)]
        client = admin(broker)
        for future in client.create_topics(topics).values():
            future.result(30)
        for number in range(1, options.rounds + 1):
            print(f"ok   round {number}: {one_round(broker, model, numbers)}", flush=True)
        print(f"ok   dump: {last_round(broker, model)}", flush=True)
        failed = 0
    except (AssertionError, CannotStart, KafkaException) as error:
        print(f"FAIL {type(error).__name__}: {error}; {''.join(traceback.format_tb(error.__traceback__)[-3:])}")
    finally:
        broker.kill()
    if not failed and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
