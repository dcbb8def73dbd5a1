"""Kafka Streams with exactly_once_v2: a word count that is killed while it counts, and must neither lose nor repeat a count."""
import collections
import os
import random
import signal
import subprocess
import time

from suite.driver import decode
from suite.records import record

WORDS = [b"alpha", b"beta", b"gamma", b"delta", b"epsilon", b"zeta", b"eta"]
LINES = 300


class WordCount:
    def __init__(self, pool, classes, application, source, target, directory):
        self.command = ["java", "-Xmx256M", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{classes}/classes:{classes}/libs/*", "ringlog.ci.WordCount", application, source, target,
                        str(directory / application)]
        self.log, self.environment, self.process = directory / f"{application}.log", dict(os.environ, BOOTSTRAP=pool.bootstrap), None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.environment)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
            self.process.stdin.close()

    def stop(self):
        self.process.stdin.close()
        if self.process.wait(timeout=40):
            raise AssertionError(f"the application ended with status {self.process.returncode}: {self.tail()}")

    def tail(self):
        return self.log.read_text(errors="replace")[-1500:]


def word_count(session, classes):
    source, target, application = session.topic(2), session.topic(1), session.name()
    choose, counts = random.Random(7), collections.Counter()
    lines = [[choose.choice(WORDS) for _ in range(choose.randrange(1, 8))] for _ in range(LINES)]

    def write(part):
        for partition in (0, 1):
            records = [record(None, b" ".join(line)) for line in part[partition::2]]
            session.steward.call("produce", topic=source, partition=partition, records=records, compression="none", idempotent=True, acks=-1, each=False)
        counts.update(word for line in part for word in line)

    def visible(at_least, seconds=60):
        """What committed readers see, as (word, count); waits for so many."""
        deadline = time.monotonic() + seconds
        while True:
            answer = session.steward.call("consume", timeout=60, topic=target, partition=0, offset="earliest", count=at_least, timeout_ms=3000, isolation="read_committed")
            if len(answer) >= at_least:
                return [(decode(one["k"]), int(decode(one["v"]))) for one in answer]
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(answer)} counts after {seconds} s, expected {at_least}; the application says: {counting.tail()}")

    counting = WordCount(session.pool, classes, application, source, target, session.pool.directory)
    try:
        counting.start()
        write(lines[:100])
        visible(1)
        counting.kill()
        write(lines[100:200])
        counting.start()
        visible(counts.total())
        write(lines[200:])
        visible(counts.total())
        counting.stop()
    finally:
        counting.kill()
    answer = session.steward.call("consume", timeout=60, topic=target, partition=0, offset="earliest", count=counts.total() + 1, timeout_ms=3000, isolation="read_committed")
    found = collections.defaultdict(list)
    for one in answer:
        found[decode(one["k"])].append(int(decode(one["v"])))
    for word in WORDS:
        if found[word] != list(range(1, counts[word] + 1)):
            raise AssertionError(f"the counts of {word.decode()} are {found[word]}, expected 1 to {counts[word]}")
