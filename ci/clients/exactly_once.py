"""Exactly once under fire: rounds of transactional copying between two topics while copiers and the broker are killed.

A producer writes numbered values to a source topic. Several copiers (python/copier.py), members of one group, copy it to a target topic, each
batch with the offsets it came from in one transaction. Meanwhile, at moments that the seed chooses, a copier is killed -9 and started again, a
second copier takes the transactional id of one that lives, and the broker is killed -9 and started again. Then all is left alone; in the end
committed readers of the target must see every value of the source once, in its partition and in order, and the group's committed offsets must
be the source's ends.
"""
import argparse
import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from suite.broker import CannotStart, Kafka, Ringlog

QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 200}
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PARTITIONS = 4
VALUES = {1: 40, 10: 500, 100: 1500, 500: 1500}  # in each partition, by the size of a batch: a round does not count transactions
FIRE_SECONDS = 5.0
SETTLE_SECONDS = 60  # a copy that has not ended by then never does
FENCED = 3
STEPS = ("begun", "written", "offsets", "committing", "committed")


class Plan:
    """Everything a round does by choice, drawn before it begins, so a seed tells it whatever the machine does."""

    def __init__(self, numbers):
        self.copiers = numbers.randrange(2, 4)
        self.batch = numbers.choice(sorted(VALUES))
        self.values = VALUES[self.batch]
        self.assignor = numbers.choice(["range", "roundrobin", "cooperative-sticky"])
        self.static = numbers.random() < 0.6
        # Where in its life each process of a place kills itself; when these are used up, the place's copiers live on. A dynamic member that died is
        # waited for until its session has timed out, so there it is one in a round.
        self.deaths = [[f"{numbers.choice(STEPS)},{numbers.randrange(1, 7)}" for _ in range(numbers.randrange(1, 4) if self.static else 1 - min(place, 1))]
                       for place in range(self.copiers)]
        self.events = sorted((round(numbers.uniform(0.5, FIRE_SECONDS), 2), kind, numbers.randrange(self.copiers), round(numbers.uniform(0, 0.6), 2))
                             for kind in self.kinds(numbers))

    @staticmethod
    def kinds(numbers):
        kinds = [numbers.choice(["kill", "twin"]) for _ in range(numbers.randrange(1, 3))]
        return kinds + ["broker"] * numbers.choice([0, 1, 1, 2])

    def describe(self):
        fire = " ".join(f"{kind}{'' if kind == 'broker' else index}@{at}" for at, kind, index, _ in self.events)
        deaths = " ".join(f"{index}:{'+'.join(steps)}" for index, steps in enumerate(self.deaths) if steps)
        return f"{self.copiers} {'static' if self.static else 'dynamic'} copiers, batches of {self.batch}, {self.assignor}; {fire}; die at {deaths or 'none'}"


class Feed(threading.Thread):
    """Writes the source, evenly over the time of fire; retries through every crash."""

    def __init__(self, bootstrap, topic, values):
        super().__init__()
        self.topic, self.values, self.errors, self.enough = topic, values, [], threading.Event()
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "delivery.timeout.ms": 60000, "linger.ms": 5,
                                  "retry.backoff.ms": 50, "retry.backoff.max.ms": 200, **QUIET})

    def run(self):
        began = time.monotonic()
        for number in range(self.values):
            for partition in range(PARTITIONS):
                self.producer.produce(self.topic, value(partition, number), partition=partition, on_delivery=lambda error, _: error and self.errors.append(str(error)))
            while not self.enough.is_set() and number / self.values > (time.monotonic() - began) / FIRE_SECONDS:
                self.producer.poll(0.01)
        left = self.producer.flush(70)
        if left or self.errors:
            self.errors.insert(0, f"{left} values of the source were not written")


def value(partition, number):
    return b"%d/%d" % (partition, number)


class Copiers:
    """The copier processes, by place; each place has one transactional id, and more than one process only while a twin replaces another."""

    def __init__(self, bootstrap, name, plan, directory):
        self.bootstrap, self.name, self.plan, self.directory = bootstrap, name, plan, directory
        self.places = [[] for _ in range(plan.copiers)]
        self.fencings, self.problems, self.ends = [0] * plan.copiers, [], collections.Counter()

    def start(self, place):
        id = f"{self.name}-{place}"
        command = [sys.executable, "-B", str(HERE / "python" / "copier.py"), self.bootstrap, self.name, f"{self.name}-source", f"{self.name}-target", id,
                   str(self.plan.batch), self.plan.assignor, *([id] if self.plan.static else [])]
        death = self.plan.deaths[place].pop(0) if self.plan.deaths[place] else ""
        with open(self.directory / f"{id}.log", "ab") as log:
            self.places[place].append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ, DIE=death)))

    def watch(self):
        """Starts again what ended; an end that nothing in the plan explains is a problem."""
        for place, processes in enumerate(self.places):
            for process in [one for one in processes if one.poll() is not None]:
                processes.remove(process)
                self.ends[process.returncode] += 1
                if process.returncode == FENCED and self.fencings[place]:
                    self.fencings[place] -= 1
                elif process.returncode != -signal.SIGKILL:
                    tail = (self.directory / f"{self.name}-{place}.log").read_text(errors="replace")[-800:]
                    self.problems.append(f"copier {place} ended with status {process.returncode}: {tail}")
            if not processes and len(self.problems) < 3:
                self.start(place)

    def kill(self, place):
        for process in self.places[place]:
            process.kill()
            process.wait()

    def twin(self, place):
        if self.places[place]:
            self.fencings[place] += 2  # each may take from the other: one the transactional id, one the instance id
            self.start(place)

    def end(self):
        """Status 0 of those that are asked to end; one that was fenced meanwhile may say so."""
        processes = [process for place in self.places for process in place]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.problems.append("a copier does not end within 30 s of SIGTERM")


class Target(threading.Thread):
    """Reads the committed values of the target as they come; nothing it was given may be taken back."""

    def __init__(self, bootstrap, topic):
        super().__init__()
        self.bootstrap, self.topic, self.enough, self.errors = bootstrap, topic, threading.Event(), []
        self.found = [[] for _ in range(PARTITIONS)]

    def run(self):
        read(self.bootstrap, self.topic, self.enough.is_set, self.found, self.errors)

    def count(self):
        return sum(map(len, self.found))


def read(bootstrap, topic, enough, found, errors):
    """Adds the committed values of each partition, (offset, value), to `found` until `enough()`."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error",
                         "isolation.level": "read_committed", "fetch.wait.max.ms": 100, **QUIET})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    try:
        while not enough():
            for message in consumer.consume(2000, 0.1):
                if not message.error():
                    found[message.partition()].append((message.offset(), message.value()))
                elif message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                    errors.append(f"a reader of {topic} lost its place: {message.error()}")
                    return
    finally:
        consumer.close()


def judge(found, values):
    problems = []
    for partition, records in enumerate(found):
        wanted, got = [b"copy of " + value(partition, number) for number in range(values)], [data for _, data in records]
        if got == wanted:
            continue
        times, place = collections.Counter(got), f"partition {partition}"
        lost = [data for data in wanted if not times[data]]
        doubled = [data for data in times if times[data] > 1]
        strange = [data for data in times if data not in set(wanted)]
        for what, which in (("lost", lost), ("doubled", doubled), ("not of the source", strange)):
            if which:
                problems.append(f"{place}: {len(which)} values are {what}, the first is {which[0].decode()} of {values}")
        if not lost and not doubled and not strange:
            at = next(index for index, (one, other) in enumerate(zip(got, wanted)) if one != other)
            problems.append(f"{place}: out of order, value {at} is {got[at].decode()}")
    return problems


def committed(bootstrap, group, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, **QUIET})
    try:
        return [one.offset for one in consumer.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], timeout=20)]
    finally:
        consumer.close()


def one_round(number, broker, numbers, directory, kept):
    name, plan = f"round-{number}", Plan(numbers)
    described = plan.describe()  # before its deaths are used up
    source, target = f"{name}-source", f"{name}-target"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
    for made in admin.create_topics([NewTopic(source, PARTITIONS, 1), NewTopic(target, PARTITIONS, 1)]).values():
        made.result(30)
    began, problems = time.monotonic(), []
    copiers, feed, reader = Copiers(broker.bootstrap, name, plan, directory), Feed(broker.bootstrap, source, plan.values), Target(broker.bootstrap, target)
    for place in range(plan.copiers):
        copiers.start(place)
    feed.start()
    reader.start()
    try:
        fire = time.monotonic()
        for at, kind, place, rest in plan.events:
            while time.monotonic() - fire < at:
                copiers.watch()
                time.sleep(0.02)
            if kind == "broker":
                broker.kill()
                time.sleep(rest)
                broker.start()
            elif kind == "kill":
                copiers.kill(place)
            else:
                copiers.twin(place)
        deadline, total = time.monotonic() + SETTLE_SECONDS, PARTITIONS * plan.values
        while reader.count() < total and time.monotonic() < deadline and len(copiers.problems) < 3 and reader.is_alive():
            copiers.watch()
            time.sleep(0.05)
        if reader.count() < total:
            problems.append(f"the target has {reader.count()} of {total} values after {SETTLE_SECONDS} s of quiet")
        copiers.watch()
        copiers.end()
        feed.join()
        time.sleep(0.3)  # a value too much comes at once
    finally:
        for place in range(plan.copiers):
            copiers.kill(place)
        feed.enough.set()
        feed.join()
        reader.enough.set()
        reader.join()
    problems += copiers.problems[:3] + feed.errors[:2] + reader.errors + judge(reader.found, plan.values)
    offsets = committed(broker.bootstrap, name, source)
    if offsets != [plan.values] * PARTITIONS:
        problems.append(f"the group has committed {offsets}, expected {plan.values} for every partition")
    again, patience = [[] for _ in range(PARTITIONS)], time.monotonic() + 20
    read(broker.bootstrap, target, lambda: sum(map(len, again)) >= reader.count() or time.monotonic() > patience, again, problems)
    if again != reader.found:
        problems.append("read again from its beginning, the target is not what was read as it came")
    for earlier, values in kept:
        old, patience = [[] for _ in range(PARTITIONS)], time.monotonic() + 20
        read(broker.bootstrap, earlier, lambda: sum(map(len, old)) >= sum(map(len, values)) or time.monotonic() > patience, old, problems)
        if old != values:
            problems.append(f"{earlier} changed in a later round")
    kept[:] = [(target, reader.found)]
    ends = ", ".join(f"{count} with status {status}" for status, count in sorted(copiers.ends.items()))
    return f"{described}; ended: {ends or 'none'}; {time.monotonic() - began:.1f} s", problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="decides every choice; round N depends on the seed and N alone")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="begin with round N, to repeat one of a longer run")
    parser.add_argument("--program", default=ROOT / "target/release/ringlog", help="the ringlog to start")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="a setting for the ringlog that is started")
    parser.add_argument("--against", choices=["ringlog", "kafka"], default="ringlog")
    parser.add_argument("--keep", action="store_true", help="keep data and logs also when every round passes")
    options = parser.parse_args()
    work = ROOT / "target/clients"
    work.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="exactly-once-", dir=work))
    broker = Ringlog(options.program, directory, options.override) if options.against == "ringlog" else Kafka(directory)
    print(f"seed {options.seed}; data and logs in {directory.relative_to(ROOT)}", flush=True)
    passed, failed, kept = 0, 0, []
    try:
        broker.start()
        for number in range(options.first, options.first + options.rounds):
            try:
                described, problems = one_round(number, broker, random.Random(f"{options.seed}/{number}"), directory, kept)
            except Exception as error:  # a round may fail in any way; it is reported and the run ends, for the broker's state is unknown
                described, problems = "the round could not end", [f"{type(error).__name__}: {error}"]
            print(f"{'FAIL' if problems else 'ok  '} round {number}: {described}" + "".join(f"\n     {problem}" for problem in problems), flush=True)
            passed, failed = passed + (not problems), failed + bool(problems)
            if described == "the round could not end":
                failed = options.rounds - passed
                break
        if broker.stop() != 0:
            print("FAIL the broker does not stop cleanly after the rounds")
            failed += 1
    except CannotStart as error:
        print(f"FAIL the broker does not start: {error}")
        failed = options.rounds - passed
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
