"""Rounds of kill -9 under load, judged by a client's ledger of acknowledgements.

One idempotent producer (acks=all) writes numbered values to several partitions of a new topic while the broker is killed at random
moments, also while it recovers, and started again on the same data. The producer is never told: it retries through every crash.
At the end of the round each partition must hold exactly the values sent, in order and once, and each at the offset that was
acknowledged. A consumer reads along; whatever it was ever given must still be there, at the same offset, at the end.
"""
import argparse
import pathlib
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from suite.broker import CannotStart, Kafka, Ringlog

QUIET = {"log_level": 0}  # librdkafka reports every refused connection, of which a crash makes thousands
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PARTITIONS = 6
BYTES_PER_ROUND = 120_000_000
BYTES_PER_SECOND = 20_000_000  # so that a round's load outlives its kills
KEPT_TOPICS = 3  # so many rounds back, topics are read again after later crashes
HEADER = struct.Struct(">IQI")  # partition, sequence, CRC-32 of the rest
NOISE = random.Random(7).randbytes(1 << 20)


def value_of(partition, sequence, size):
    start = (partition * 7919 + sequence * 104729) % (len(NOISE) - size)
    body = NOISE[start:start + size]
    return HEADER.pack(partition, sequence, zlib.crc32(body)) + body


def read_value(data):
    partition, sequence, crc = HEADER.unpack_from(data)
    if zlib.crc32(data[HEADER.size:]) != crc:
        raise AssertionError(f"the value of {partition}/{sequence} is damaged")
    return partition, sequence


class Load(threading.Thread):
    """The producer and its ledger: what was sent, and at which offset each was acknowledged."""

    def __init__(self, bootstrap, topic, random_numbers):
        super().__init__()
        self.topic, self.random = topic, random_numbers
        self.sent, self.acknowledged = [0] * PARTITIONS, [{} for _ in range(PARTITIONS)]
        self.errors, self.enough = [], threading.Event()
        self.describe = {"linger.ms": self.random.choice([0, 2, 20]), "compression.type": self.random.choice(["none", "none", "lz4", "zstd"])}
        self.large = self.random.random() < 0.3
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "delivery.timeout.ms": 120000, "request.timeout.ms": 10000,
            "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "retry.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 2000,
            "queue.buffering.max.messages": 10000, "error_cb": self.report, **self.describe, **QUIET})

    def report(self, error):
        if error.fatal():
            self.errors.append(f"the producer gave up: {error}")

    def delivered(self, partition, sequence, error, message):
        if error:
            self.errors.append(f"{partition}/{sequence} was not delivered: {error}")
        elif sequence in self.acknowledged[partition]:
            self.errors.append(f"{partition}/{sequence} was acknowledged twice")
        else:
            self.acknowledged[partition][sequence] = message.offset()

    def run(self):
        left, began = BYTES_PER_ROUND, time.monotonic()
        while not self.enough.is_set() and not self.errors and left > 0:
            if BYTES_PER_ROUND - left > (time.monotonic() - began) * BYTES_PER_SECOND:
                self.producer.poll(0.005)
                continue
            partition = self.random.randrange(PARTITIONS)
            sequence = self.sent[partition]
            size = self.random.randrange(10, 300_000 if self.large and self.random.random() < 0.02 else 3000)
            try:
                self.producer.produce(self.topic, value_of(partition, sequence, size), partition=partition,
                                      on_delivery=lambda e, m, p=partition, s=sequence: self.delivered(p, s, e, m))
            except BufferError:
                self.producer.poll(0.05)
                continue
            self.sent[partition] += 1
            left -= size
            self.producer.poll(0)
        left = self.producer.flush(130)
        if left:
            self.errors.append(f"{left} values were neither delivered nor refused")


class Along(threading.Thread):
    """Reads while the broker is killed; remembers every record it was given."""

    def __init__(self, bootstrap, topic):
        super().__init__()
        self.bootstrap, self.topic, self.seen, self.errors, self.enough = bootstrap, topic, {}, [], threading.Event()

    def run(self):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error",
                             "reconnect.backoff.max.ms": 200, **QUIET})
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        try:
            while not self.enough.is_set():
                for message in consumer.consume(1000, 0.2):
                    if message.error():
                        if message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                            self.errors.append(f"the consumer lost its place: {message.error()}")
                            return
                    else:
                        self.seen[message.partition(), message.offset()] = read_value(message.value())
        except AssertionError as error:
            self.errors.append(str(error))
        finally:
            consumer.close()


def read_all(bootstrap, topic, ends):
    """Every record of the topic, by partition, as [(offset, sequence)]; ends when each partition gave what it should, or after 60 s."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error",
                         "enable.partition.eof": True, **QUIET})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, at_end, deadline = [[] for _ in range(PARTITIONS)], set(), time.monotonic() + 60
    try:
        while len(at_end) < PARTITIONS and time.monotonic() < deadline:
            for message in consumer.consume(5000, 0.2):
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise AssertionError(f"reading back: {message.error()}")
                    at_end.add(message.partition())
                    continue
                partition, sequence = read_value(message.value())
                if partition != message.partition():
                    raise AssertionError(f"a value of partition {partition} lies in {message.partition()}")
                found[partition].append((message.offset(), sequence))
    finally:
        consumer.close()
    for partition, end in enumerate(ends):
        if len(found[partition]) < end and partition not in at_end:
            raise AssertionError(f"partition {partition} gave {len(found[partition])} of {end} values within 60 s")
    return found


def judge(load, found):
    """Compares the log with the ledger; answers what is wrong, in words."""
    problems = []
    for partition, (records, sent, acknowledged) in enumerate(zip(found, load.sent, load.acknowledged)):
        sequences = [sequence for _, sequence in records]
        held = set(sequences)
        lost = [sequence for sequence in acknowledged if sequence not in held]
        if lost:
            problems.append(f"partition {partition}: {len(lost)} acknowledged values are lost, the first is {min(lost)} of {sent}")
        if len(held) != len(sequences):
            doubled = sorted(sequence for sequence in held if sequences.count(sequence) > 1)[:3] if len(sequences) < 50000 else "?"
            problems.append(f"partition {partition}: {len(sequences) - len(held)} values are doubled: {doubled}")
        if sequences != sorted(sequences):
            problems.append(f"partition {partition}: values are out of order")
        moved = [(sequence, offset, acknowledged[sequence]) for offset, sequence in records if acknowledged.get(sequence, offset) != offset]
        if moved:
            problems.append(f"partition {partition}: value {moved[0][0]} lies at offset {moved[0][1]}, acknowledged was {moved[0][2]}")
        if not problems and [offset for offset, _ in records] != list(range(len(records))):
            problems.append(f"partition {partition}: offsets have gaps")
    return problems


def crash_round(number, broker, random_numbers, kept, rest):
    topic = f"crash-{number}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    load, along = Load(broker.bootstrap, topic, random_numbers), Along(broker.bootstrap, topic)
    load.start()
    along.start()
    kills, slowest, problems = 0, 0.0, []
    try:
        for _ in range(random_numbers.randrange(1, 4)):
            time.sleep(random_numbers.uniform(0.05, 1.5))
            broker.kill()
            time.sleep(rest)
            kills += 1
            while random_numbers.random() < 0.3:
                broker.launch()
                time.sleep(random_numbers.uniform(0, 0.2))
                broker.kill()
                time.sleep(rest)
                kills += 1
            began = time.monotonic()
            broker.start()
            slowest = max(slowest, time.monotonic() - began)
        time.sleep(random_numbers.uniform(0, 0.5))
    finally:
        load.enough.set()
        load.join()
        along.enough.set()
        along.join()
    found = read_all(broker.bootstrap, topic, load.sent)
    problems += load.errors[:3] + along.errors + judge(load, found)
    by_offset = {(partition, offset): sequence for partition, records in enumerate(found) for offset, sequence in records}
    taken_back = [(place, value) for place, value in along.seen.items() if by_offset.get(place) != value[1]]
    if taken_back:
        problems.append(f"{len(taken_back)} records were read and then taken back, the first at {taken_back[0][0]}")
    for earlier_topic, earlier in kept:
        if read_all(broker.bootstrap, earlier_topic, [len(records) for records in earlier]) != earlier:
            problems.append(f"{earlier_topic} changed in a later crash")
    kept.append((topic, found))
    if len(kept) > KEPT_TOPICS:
        gone, _ = kept.pop(0)
        admin.delete_topics([gone])[gone].result(30)
    described = f"{sum(map(len, load.acknowledged))} acknowledged, {len(along.seen)} read along, {kills} kills, slowest start {slowest:.2f} s, {load.describe}"
    return described, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--program", default=ROOT / "target/release/ringlog", help="the ringlog to start")
    parser.add_argument("--shards", type=int, default=2, help="how many shards the ringlog has")
    parser.add_argument("--against", choices=["ringlog", "kafka"], default="ringlog")
    parser.add_argument("--rest", type=float, default=0, metavar="SECONDS", help="how long the broker stays dead; without, it is started at once")
    parser.add_argument("--keep", action="store_true", help="keep the data and the broker's log also when every round passes")
    options = parser.parse_args()
    work = ROOT / "target/clients"
    work.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="crash-", dir=work))
    broker = Ringlog(options.program, directory, [f"shards={options.shards}"]) if options.against == "ringlog" else Kafka(directory)
    print(f"seed {options.seed}; data and logs in {directory.relative_to(ROOT)}", flush=True)
    passed, failed, kept, random_numbers = 0, 0, [], random.Random(options.seed)
    try:
        broker.start()
        for number in range(1, options.rounds + 1):
            try:
                described, problems = crash_round(number, broker, random_numbers, kept, options.rest)
            except Exception as error:  # a round may fail in any way; it is reported and the run ends, for the broker's state is unknown
                described, problems = "the round could not end", [f"{type(error).__name__}: {error}"]
            print(f"{'FAIL' if problems else 'ok  '} round {number}: {described}" + "".join(f"\n     {problem}" for problem in problems), flush=True)
            passed, failed = passed + (not problems), failed + bool(problems)
            if described == "the round could not end":
                failed += options.rounds - number
                break
        if broker.stop() != 0:
            print("FAIL the broker does not stop cleanly after the rounds")
            failed += 1
    except CannotStart as error:
        print(f"FAIL the broker does not start: {error}")
        failed += options.rounds - passed - failed
    finally:
        if options.against == "ringlog":
            broker.kill()
        else:
            broker.stop()
    if not failed and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
