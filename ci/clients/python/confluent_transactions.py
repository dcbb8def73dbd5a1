"""Transactional producers of confluent-kafka, by the name the suite gave each, and the errors of librdkafka as Kafka's."""
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer

from protocol import BOOTSTRAP, ClientError, decode

# librdkafka's own code for a producer that another one of its id has replaced.
FENCED = {confluent_kafka.KafkaError._FENCED: 90}


def client_error(error):
    """librdkafka folds a failed fetch position into its own code; its text still names the broker's answer."""
    if error.code() == confluent_kafka.KafkaError._AUTO_OFFSET_RESET and "out of range" in error.str().lower():
        return ClientError(1, error.str())
    return ClientError(FENCED.get(error.code(), error.code()), error.str())


def reporting(operation):
    def run(*arguments, **named):
        try:
            return operation(*arguments, **named)
        except KafkaException as error:
            raise client_error(error.args[0]) from None
    return run


class Transactions:
    def __init__(self):
        self.transactional = {}

    @reporting
    def txn_open(self, producer, id, timeout_ms):
        made = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": id, "transaction.timeout.ms": timeout_ms, "linger.ms": 5,
                         "delivery.timeout.ms": min(timeout_ms, 30000)})
        made.init_transactions(30)
        self.transactional[producer] = made

    @reporting
    def txn_begin(self, producer):
        self.transactional[producer].begin_transaction()

    @reporting
    def txn_send(self, producer, topic, partition, values):
        made, errors = self.transactional[producer], []
        for value in values:
            made.produce(topic, decode(value), partition=partition, on_delivery=lambda error, _: error and errors.append(error))
        if made.flush(30):
            raise ClientError(None, "records are still not delivered after 30 s")
        if errors:
            raise client_error(errors[0])

    @reporting
    def txn_end(self, producer, commit):
        made = self.transactional[producer]
        (made.commit_transaction if commit else made.abort_transaction)(30)

    def txn_close(self, producer):
        del self.transactional[producer]

    @reporting
    def txn_copy(self, id, group, source, target, count, commit):
        read = self.txn_copy_open(id, group, source, target, count)
        self.txn_end("copy", commit)
        self.txn_close("copy")
        return read

    @reporting
    def txn_copy_open(self, id, group, source, target, count):
        """Copies and sends the offsets, leaves the group, and leaves the transaction of the producer `copy` open."""
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                             "isolation.level": "read_committed", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500})
        consumer.subscribe([source])
        try:
            self.txn_open("copy", id, 30000)
            producer, read, deadline = self.transactional["copy"], 0, time.monotonic() + 40
            producer.begin_transaction()
            while read < count and time.monotonic() < deadline:
                message = consumer.poll(0.1)
                if message is None:
                    continue
                if message.error():
                    raise client_error(message.error())
                producer.produce(target, b"copy of " + message.value(), partition=message.partition())
                read += 1
            producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30)
            return read
        finally:
            consumer.close()
