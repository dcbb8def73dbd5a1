"""Driver for confluent-kafka (librdkafka)."""
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic)

from confluent_transactions import Transactions, client_error
from protocol import BOOTSTRAP, FETCH_WAIT_MS, REQUEST_BYTES_MAX, BulkReading, ClientError, bulk_value, decode, encode, serve

START = {"earliest": confluent_kafka.OFFSET_BEGINNING, "latest": confluent_kafka.OFFSET_END}


class Driver(Transactions):
    def __init__(self):
        super().__init__()
        self.admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
        self.producers = {}

    def version(self):
        return f"confluent-kafka {confluent_kafka.__version__}, librdkafka {confluent_kafka.libversion()[0]}"

    def settled(self, futures):
        try:
            return [future.result(timeout=30) for future in futures.values()][0]
        except KafkaException as error:
            raise client_error(error.args[0]) from None

    def create_topic(self, topic, partitions, configs):
        self.settled(self.admin.create_topics([NewTopic(topic, partitions, 1, config=configs)]))

    def delete_topic(self, topic):
        self.settled(self.admin.delete_topics([topic]))

    def list_topics(self):
        return list(self.admin.list_topics(timeout=20).topics)

    def describe_topic(self, topic):
        return len(self.settled(self.admin.describe_topics(confluent_kafka.TopicCollection([topic]))).partitions)

    def describe_configs(self, topic):
        entries = self.settled(self.admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]))
        return {name: entry.value for name, entry in entries.items()}

    def alter_config(self, topic, key, value):
        entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        self.settled(self.admin.incremental_alter_configs([resource]))

    def create_partitions(self, topic, total):
        self.settled(self.admin.create_partitions([NewPartitions(topic, total)]))
        self.producers.clear()  # librdkafka looks again for the partitions of a topic it knows only after minutes

    def delete_records(self, topic, partition, before):
        return self.settled(self.admin.delete_records([TopicPartition(topic, partition, before)])).low_watermark

    def producer(self, compression, idempotent, acks):
        key = (compression, idempotent, acks)
        if key not in self.producers:
            self.producers[key] = Producer({
                "bootstrap.servers": BOOTSTRAP, "compression.type": compression, "enable.idempotence": idempotent, "acks": acks,
                "linger.ms": 20, "message.max.bytes": REQUEST_BYTES_MAX, "delivery.timeout.ms": 30000})
        return self.producers[key]

    def produce(self, topic, partition, records, compression, idempotent, acks, each):
        producer, reports = self.producer(compression, idempotent, acks), [None] * len(records)
        for index, record in enumerate(records):
            def delivered(error, message, index=index):
                reports[index] = error or message.offset()
            producer.produce(topic, decode(record["v"]), decode(record["k"]), -1 if partition is None else partition,
                             on_delivery=delivered, timestamp=record["ts"] or 0,
                             headers=[(name, decode(value)) for name, value in record["h"]])
            if each:
                producer.flush(30)
        if producer.flush(30):
            raise ClientError(None, "records are still not delivered after 30 s")
        for report in reports:
            if isinstance(report, confluent_kafka.KafkaError):
                raise client_error(report)
        return [offset if offset is not None and offset >= 0 else None for offset in reports]

    def produce_bulk(self, topic, partition, count, bytes, compression, idempotent):
        producer, offsets, errors = self.producer(compression, idempotent, -1), [], []
        for index in range(count):
            while True:
                try:
                    producer.produce(topic, bulk_value(index, bytes), None, partition,
                                     on_delivery=lambda e, m: errors.append(e) if e else offsets.append(m.offset()))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        if producer.flush(60):
            raise ClientError(None, "records are still not delivered after 60 s")
        if errors:
            raise client_error(errors[0])
        return offsets[0]

    def messages(self, topic, partition, offset, count, timeout_ms, fetch_bytes=1 << 20, fetch_wait_ms=FETCH_WAIT_MS, isolation="read_committed"):
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False,
                             "auto.offset.reset": "error", "fetch.wait.max.ms": fetch_wait_ms, "socket.timeout.ms": fetch_wait_ms + 10000, "fetch.message.max.bytes": fetch_bytes,
                             "log.connection.close": False, "isolation.level": isolation})
        try:
            consumer.assign([TopicPartition(topic, partition, START.get(offset, offset))])
            deadline = time.monotonic() + timeout_ms / 1000
            while count > 0 and (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(min(count, 10000), min(left, 0.2)):
                    if message.error():
                        raise client_error(message.error())
                    count -= 1
                    yield message
        finally:
            consumer.close()

    def consume(self, **arguments):
        records = []
        for message in self.messages(**arguments):
            kind, timestamp = message.timestamp()
            records.append({"o": message.offset(), "k": encode(message.key()), "v": encode(message.value()), "ts": timestamp,
                            "tt": {1: "create", 2: "append"}.get(kind),
                            "h": [[name, encode(value)] for name, value in message.headers() or []]})
        return records

    def consume_bulk(self, **arguments):
        reading = BulkReading()
        for message in self.messages(**arguments):
            reading.take(message.offset(), message.value())
        return reading.answer()

    def asking(self, ask):
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused"})
        try:
            return ask(consumer)
        except KafkaException as error:
            raise client_error(error.args[0]) from None
        finally:
            consumer.close()

    def watermarks(self, topic, partition):
        return list(self.asking(lambda consumer: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)))

    def offset_for_time(self, topic, partition, ts):
        found = self.asking(lambda consumer: consumer.offsets_for_times([TopicPartition(topic, partition, ts)], timeout=20))[0]
        if found.error:
            raise client_error(found.error)
        return found.offset if found.offset >= 0 else -1

    def committed(self, group, topic, partition):
        """What any group has committed, asked for without being a member."""
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group})
        try:
            found = consumer.committed([TopicPartition(topic, partition)], timeout=20)[0]
            if found.error:
                raise client_error(found.error)
            return max(-1, found.offset)
        except KafkaException as error:
            raise client_error(error.args[0]) from None
        finally:
            consumer.close()

    def commit_outside(self, group, topic, partition, offset):
        """A commit by a client that assigns itself a partition and is no member of the group."""
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "enable.auto.commit": False})
        try:
            answer = consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)[0]
            if answer.error:
                raise client_error(answer.error)
        except KafkaException as error:
            raise client_error(error.args[0]) from None
        finally:
            consumer.close()


if __name__ == "__main__":
    serve(Driver())
