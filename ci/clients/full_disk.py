"""A disk that is really full, judged by a client's ledger of acknowledgements.

A broker has its data on a small file system of its own. A producer fills it until the broker refuses with KAFKA_STORAGE_ERROR. From then on nothing
may be lost: what is there is served, also after kill -9 on the full disk; records and topics can be deleted; and once that has made room, the
same producer goes on without anybody's help. At the end every acknowledged value is at its offset, once.

Must run in a mount namespace of its own, in which it may mount (`full_disk` beside it sees to that).
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from crash import QUIET, ROOT, read_value, value_of
from suite.broker import Ringlog

PARTITIONS = 3
VALUE_BYTES = 20_000
ROOM_SHARE = 3  # so much of the disk, one part in so many, is given to a topic that is deleted later
PATIENCE = 40
SETTINGS = ("shards=2", "journal.bytes.max=16777216", "memory.tail.cache.bytes=16777216", "log.segment.bytes=2097152",
            "log.segment.delete.delay.ms=500", "log.retention.check.interval.ms=2000")


class Failed(Exception):
    """What was seen and should not be."""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise OSError(f"{command[0]}: {reason[0]}")


def mount(directory, megabytes):
    """Mounts a file system of this size where a broker in `directory` has its data; answers where, and what it is."""
    point, image = directory / "data", directory / "image"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    try:
        run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        run("mount", "-o", "loop", image, point)
        return point, "ext4 in a file"
    except (OSError, FileNotFoundError) as error:
        image.unlink()
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", point)
        return point, f"tmpfs, for want of ext4 ({error})"


class Ledger:
    """Produces numbered values, one after the other in each partition, and notes at which offset each was acknowledged."""

    def __init__(self, bootstrap, topic):
        self.topic, self.sent, self.acknowledged, self.refused = topic, [0] * PARTITIONS, {}, []
        # Without retries, so that the refusal itself is seen; without idempotence, so that a refused value ends nothing.
        self.producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "retries": 0, "delivery.timeout.ms": 30000, "request.timeout.ms": 20000,
                                  "reconnect.backoff.max.ms": 200, "batch.size": 4 * VALUE_BYTES, "linger.ms": 5, **QUIET})

    def delivered(self, partition, sequence, error, message):
        if error:
            self.refused.append(error)
        else:
            self.acknowledged[partition, sequence] = message.offset()

    def produce(self, count):
        """Sends so many values and waits for their fates; answers how many were acknowledged, and the refusals."""
        before, self.refused = len(self.acknowledged), []
        for number in range(count):
            partition = number % PARTITIONS
            sequence = self.sent[partition]
            self.sent[partition] += 1
            self.producer.produce(self.topic, value_of(partition, sequence, VALUE_BYTES), partition=partition,
                                  on_delivery=lambda e, m, p=partition, s=sequence: self.delivered(p, s, e, m))
            self.producer.poll(0)
        if self.producer.flush(PATIENCE):
            raise Failed("values were neither acknowledged nor refused")
        return len(self.acknowledged) - before, self.refused

    def fill(self):
        """Produces until nothing is taken any more."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            taken, refused = self.produce(60)
            strange = [error for error in refused if error.code() != KafkaError.KAFKA_STORAGE_ERROR]
            if strange:
                raise Failed(f"refused with {strange[0]}, not with KAFKA_STORAGE_ERROR")
            if not taken:
                return
        raise Failed(f"the disk is not full after {PATIENCE} s")

    def check(self, bootstrap, when):
        """Reads everything back and compares."""
        found = read_all(bootstrap, self.topic)
        for (partition, sequence), offset in self.acknowledged.items():
            if found.get((partition, offset)) != sequence:
                raise Failed(f"{when}: value {sequence} of partition {partition}, acknowledged at {offset}, is not there but {found.get((partition, offset))}")
        places = [(partition, sequence) for (partition, _), sequence in found.items()]
        if len(set(places)) != len(places):
            raise Failed(f"{when}: a value is there twice")
        print(f"ok   {when}: {len(self.acknowledged)} acknowledged values are there, of {sum(self.sent)} sent", flush=True)


def read_all(bootstrap, topic):
    """(partition, offset) → sequence, of all there is."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": True, **QUIET})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, at_end, deadline = {}, set(), time.monotonic() + PATIENCE
    try:
        while len(at_end) < PARTITIONS:
            if time.monotonic() > deadline:
                raise Failed("what is there is not served")
            for message in consumer.consume(1000, 0.2):
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        raise Failed(f"reading back: {message.error()}")
                    at_end.add(message.partition())
                else:
                    found[message.partition(), message.offset()] = read_value(message.value())[1]
    finally:
        consumer.close()
    return found


def fill_room(bootstrap, topic, size):
    """Gives part of the disk to a topic that can be done without."""
    producer, failed = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5, **QUIET}), []
    for number in range(size // VALUE_BYTES):
        producer.produce(topic, value_of(0, number, VALUE_BYTES), partition=0, on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0.001)
    if producer.flush(PATIENCE) or failed:
        raise Failed(f"there is space, and yet {failed[:1]}")


def free_megabytes(point):
    return shutil.disk_usage(point).free / (1 << 20)


def scenario(broker, point, megabytes):
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
    for topic, partitions in (("kept", PARTITIONS), ("room", 1)):
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(PATIENCE)
    fill_room(broker.bootstrap, "room", (megabytes << 20) // ROOM_SHARE)
    ledger = Ledger(broker.bootstrap, "kept")
    ledger.fill()
    print(f"ok   refused with KAFKA_STORAGE_ERROR after {len(ledger.acknowledged)} values, {free_megabytes(point):.1f} MiB free", flush=True)
    ledger.check(broker.bootstrap, "on the full disk")
    # Whatever else lies on a real disk takes the rest of it.
    with open(point / "others", "wb", buffering=0) as others:
        try:
            while others.write(b"\1" * 4096):
                pass
        except OSError:
            pass
    for when in ("killed on the full disk", "killed again"):
        broker.kill()
        broker.start()
        ledger.check(broker.bootstrap, when)
    ledger.fill()
    start = admin.delete_records([TopicPartition("room", 0, 10)])[TopicPartition("room", 0)].result(PATIENCE).low_watermark
    if start != 10:
        raise Failed(f"deleting records moved the log's start to {start}")
    print("ok   records can be deleted on the full disk", flush=True)
    admin.delete_topics(["room"])["room"].result(PATIENCE)
    deleted = time.monotonic()
    print("ok   a topic can be deleted on the full disk", flush=True)
    while ledger.produce(60)[1]:
        if time.monotonic() - deleted > PATIENCE:
            raise Failed(f"not all is taken {PATIENCE} s after the topic was deleted, with {free_megabytes(point):.1f} MiB free")
        time.sleep(0.1)
    print(f"ok   goes on by itself {time.monotonic() - deleted:.1f} s after the deletion", flush=True)
    taken, refused = ledger.produce(300)
    if refused:
        raise Failed(f"there is space again, and yet {refused[0]}")
    ledger.check(broker.bootstrap, "after there is space")
    broker.kill()
    broker.start()
    ledger.check(broker.bootstrap, "killed after there is space")
    if broker.stop() != 0:
        raise Failed("the broker does not stop cleanly")
    print("ok   stops cleanly", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/ringlog", help="the ringlog to start")
    parser.add_argument("--megabytes", type=int, default=128, help="the size of the disk")
    parser.add_argument("--keep", action="store_true", help="keep the broker's log also when it passes")
    parser.add_argument("--probe", action="store_true", help="only say whether a file system can be mounted")
    options = parser.parse_args()
    work = ROOT / "target/clients"
    work.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="full-", dir=work))
    broker, passed = None, False
    try:
        point, kind = mount(directory, 8 if options.probe else options.megabytes)
        try:
            if options.probe:
                passed = True
                return
            print(f"a disk of {options.megabytes} MiB: {kind}", flush=True)
            broker = Ringlog(pathlib.Path(options.program).resolve(), directory, SETTINGS)
            scenario(broker, point, options.megabytes)
            passed = True
        except Exception as error:  # whatever it is, the broker's log belongs to it
            print(f"FAIL {type(error).__name__}: {error}\n{broker.log_tail() if broker else ''}")
        finally:
            if broker:
                broker.kill()
            subprocess.run(["umount", point], check=True)
        print("1 passed, 0 failed" if passed else "0 passed, 1 failed")
    finally:
        if options.probe or (passed and not options.keep):
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
