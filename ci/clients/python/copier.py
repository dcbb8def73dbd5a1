"""Copies one topic to another, partition by partition, exactly once: each batch and the offsets it came from are one transaction.

    copier.py BOOTSTRAP GROUP SOURCE TARGET TRANSACTIONAL_ID BATCH ASSIGNOR [INSTANCE]

Ends with status 3 when another copier has taken its transactional id or its group instance id, and with 0 on SIGTERM. With DIE=STEP,N in the
environment it kills itself with SIGKILL at a step of its Nth transaction: `begun`, `written`, `offsets`, `committing`, `committed`."""
import os
import signal
import sys
import threading
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

FENCED = 3
TIMEOUT_SECONDS = 15
BATCH_SECONDS = 0.15


class Copier:
    def __init__(self, bootstrap, group, source, target, id, batch, assignor, instance=None):
        self.target, self.batch = target, int(batch)
        common = {"bootstrap.servers": bootstrap, "log_level": 3, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "retry.backoff.max.ms": 200,
                  "error_cb": self.failed}
        # The transaction outlives any crash of the broker, so only a newer copier can fence this one.
        self.producer = Producer({**common, "transactional.id": id, "transaction.timeout.ms": 120000, "delivery.timeout.ms": 60000, "linger.ms": 2})
        self.consumer = Consumer({**common, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest", "isolation.level": "read_committed",
                                  "session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 100,
                                  "partition.assignment.strategy": assignor, **({"group.instance.id": instance} if instance else {})})
        self.revoked, self.ended, self.transactions = False, False, 0
        self.death, count = (os.environ.get("DIE") or ",0").split(",")
        self.dies_in = int(count)
        self.until_done(self.producer.init_transactions)
        self.consumer.subscribe([source], on_revoke=self.lose, on_lost=self.lose)

    def failed(self, error):
        if error.fatal():
            self.end_of_the_line(error)

    @staticmethod
    def end_of_the_line(error):
        print(f"ends: {error}", flush=True)
        fenced = error.code() == confluent_kafka.KafkaError._FENCED or "fenced" in error.str().lower() or "epoch" in error.str().lower()
        sys.exit(FENCED if fenced else 1)

    def lose(self, _consumer, _partitions):
        """What was read of partitions that another copier now owns must not be written."""
        self.revoked = True

    def until_done(self, run):
        """Repeats a step that the client says may be repeated, as when the broker is away."""
        while True:
            try:
                return run(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].fatal():
                    self.end_of_the_line(error.args[0])
                if not error.args[0].retriable():
                    raise
                time.sleep(0.05)

    def read(self):
        """Some records of the partitions that are owned now; nothing when a partition was lost while reading."""
        messages, self.revoked, deadline = [], False, None
        while len(messages) < self.batch and not self.ended and (deadline is None or time.monotonic() < deadline):
            message = self.consumer.poll(0.05)
            if self.revoked:
                self.rewind(messages)
                messages, self.revoked, deadline = [], False, None
            if message is None:
                continue
            if message.error():
                if message.error().fatal() or message.error().code() == confluent_kafka.KafkaError._FATAL:
                    self.end_of_the_line(message.error())
                continue
            deadline = deadline or time.monotonic() + BATCH_SECONDS
            messages.append(message)
        return messages

    def rewind(self, messages):
        """Reads again, from the first of these on, what is still owned."""
        first = {}
        for message in messages:
            first.setdefault((message.topic(), message.partition()), message.offset())
        owned = {(one.topic, one.partition) for one in self.consumer.assignment()}
        for where, offset in first.items():
            if where in owned:
                try:
                    self.consumer.seek(TopicPartition(*where, offset))
                except KafkaException as error:
                    print(f"seek: {error}", flush=True)  # it was lost meanwhile, and its next owner begins at what is committed

    def step(self, name):
        if name == self.death and self.transactions == self.dies_in:
            if name != "committing":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(0.001 * self.dies_in, os.kill, (os.getpid(), signal.SIGKILL)).start()  # somewhere within the commit

    def copy(self, messages):
        self.transactions += 1
        next_offsets = {(message.topic(), message.partition()): message.offset() + 1 for message in messages}
        try:
            self.producer.begin_transaction()
            self.step("begun")
            for message in messages:
                self.producer.produce(self.target, b"copy of " + message.value(), partition=message.partition())
            if self.death == "written":
                self.producer.flush(TIMEOUT_SECONDS)
                self.step("written")
            offsets = [TopicPartition(*where, offset) for where, offset in next_offsets.items()]
            self.until_done(lambda timeout: self.producer.send_offsets_to_transaction(offsets, self.consumer.consumer_group_metadata(), timeout))
            self.step("offsets")
            self.step("committing")
            self.until_done(self.producer.commit_transaction)
            self.step("committed")
        except KafkaException as error:
            if error.args[0].fatal():
                self.end_of_the_line(error.args[0])
            if not error.args[0].txn_requires_abort():
                raise
            print(f"aborts {len(messages)}: {error}", flush=True)
            self.until_done(self.producer.abort_transaction)
            self.rewind(messages)

    def run(self):
        while not self.ended:
            messages = self.read()
            if messages:
                self.copy(messages)
        self.consumer.close()


if __name__ == "__main__":
    copier = Copier(*sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: setattr(copier, "ended", True))
    copier.run()
