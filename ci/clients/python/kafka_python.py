"""Driver for kafka-python."""
import re
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from protocol import BOOTSTRAP, FETCH_WAIT_MS, REQUEST_BYTES_MAX, BulkReading, ClientError, bulk_value, decode, encode, serve


def reporting(operation):
    """Answers kafka-python's exceptions with their Kafka error code; its own, which never were on the wire, have none."""
    def run(*arguments, **named):
        try:
            return operation(*arguments, **named)
        except OffsetOutOfRangeError as error:
            raise ClientError(1, repr(error)) from error
        except KafkaError as error:
            code = getattr(error, "errno", None)
            raise ClientError(code if isinstance(code, int) and code > 0 else None, repr(error)) from error
    return run


class Driver:
    def __init__(self):
        self.made_admin, self.producers, self.transactional = None, {}, {}

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        return reporting(found) if callable(found) and not name.startswith("_") else found

    def version(self):
        return f"kafka-python {kafka.__version__}"

    def admin(self):
        if self.made_admin is None:
            self.made_admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        return self.made_admin

    def create_topic(self, topic, partitions, configs):
        self.admin().create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])

    def delete_topic(self, topic):
        self.admin().delete_topics([topic])

    def list_topics(self):
        return [topic if isinstance(topic, str) else topic["name"] for topic in self.admin().list_topics()]

    def describe_topic(self, topic):
        described = self.admin().describe_topics([topic])[0]
        if described.get("error_code"):
            raise kafka.errors.for_code(described["error_code"])(topic)
        return len(described["partitions"])

    def describe_configs(self, topic):
        answer = self.admin().describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        return {key: entry["value"] for key, entry in answer["topic"][topic].items()}

    def alter_config(self, topic, key, value):
        answer = self.admin().alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={key: value})])["topic"][topic]
        refused = re.match(r"\[Error (\d+)\]", answer)  # this client answers with the error's text and raises nothing
        if refused:
            raise ClientError(int(refused[1]), answer)

    def create_partitions(self, topic, total):
        self.admin().create_partitions({topic: NewPartitions(total)})

    def delete_records(self, topic, partition, before):
        answer = self.admin().delete_records({TopicPartition(topic, partition): before})
        return answer[TopicPartition(topic, partition)]["low_watermark"]

    def producer(self, compression, idempotent, acks):
        key = (compression, idempotent, acks)
        if key not in self.producers:
            self.producers[key] = KafkaProducer(
                bootstrap_servers=BOOTSTRAP, compression_type=None if compression == "none" else compression, enable_idempotence=idempotent,
                acks="all" if acks == -1 else acks, linger_ms=20, max_request_size=REQUEST_BYTES_MAX, batch_size=200_000)
        return self.producers[key]

    def produce(self, topic, partition, records, compression, idempotent, acks, each):
        producer, futures = self.producer(compression, idempotent, acks), []
        for record in records:
            futures.append(producer.send(topic, decode(record["v"]), decode(record["k"]), [(name, decode(value)) for name, value in record["h"]],
                                         partition, record["ts"]))
            if each:
                producer.flush(30)
        producer.flush(30)
        offsets = [future.get(30).offset for future in futures]
        return [offset if offset >= 0 else None for offset in offsets]

    def produce_bulk(self, topic, partition, count, bytes, compression, idempotent):
        producer = self.producer(compression, idempotent, -1)
        futures = [producer.send(topic, bulk_value(index, bytes), partition=partition) for index in range(count)]
        producer.flush(120)
        return [future.get(30).offset for future in futures][0]

    def _messages(self, topic, partition, offset, count, timeout_ms, isolation="read_uncommitted"):
        consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None, isolation_level=isolation, auto_offset_reset="none", fetch_max_wait_ms=FETCH_WAIT_MS,
                                 max_partition_fetch_bytes=REQUEST_BYTES_MAX, fetch_max_bytes=REQUEST_BYTES_MAX)
        try:
            assigned = TopicPartition(topic, partition)
            consumer.assign([assigned])
            if offset == "earliest":
                consumer.seek_to_beginning(assigned)
            elif offset == "latest":
                consumer.seek_to_end(assigned)
            else:
                consumer.seek(assigned, offset)
            deadline = time.monotonic() + timeout_ms / 1000
            while count > 0 and time.monotonic() < deadline:
                for record in consumer.poll(timeout_ms=200, max_records=min(count, 10000)).get(assigned, []):
                    count -= 1
                    yield record
        finally:
            consumer.close()

    def consume(self, **arguments):
        return [{"o": record.offset, "k": encode(record.key), "v": encode(record.value), "ts": record.timestamp,
                 "tt": {0: "create", 1: "append"}[record.timestamp_type],
                 "h": [[name, encode(value)] for name, value in record.headers]} for record in self._messages(**arguments)]

    def consume_bulk(self, **arguments):
        reading = BulkReading()
        for record in self._messages(**arguments):
            reading.take(record.offset, record.value)
        return reading.answer()

    def _asking(self, ask):
        consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None)
        try:
            return ask(consumer)
        finally:
            consumer.close()

    def watermarks(self, topic, partition):
        asked = TopicPartition(topic, partition)
        return self._asking(lambda consumer: [consumer.beginning_offsets([asked])[asked], consumer.end_offsets([asked])[asked]])

    def offset_for_time(self, topic, partition, ts):
        asked = TopicPartition(topic, partition)
        found = self._asking(lambda consumer: consumer.offsets_for_times({asked: ts}))[asked]
        return found.offset if found else -1

    def txn_open(self, producer, id, timeout_ms):
        made = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=id, transaction_timeout_ms=timeout_ms, acks="all")
        made.init_transactions()
        self.transactional[producer] = made

    def txn_begin(self, producer):
        self.transactional[producer].begin_transaction()

    def txn_send(self, producer, topic, partition, values):
        futures = [self.transactional[producer].send(topic, decode(value), partition=partition) for value in values]
        self.transactional[producer].flush(30)
        for future in futures:
            future.get(30)

    def txn_end(self, producer, commit):
        made = self.transactional[producer]
        (made.commit_transaction if commit else made.abort_transaction)()

    def txn_close(self, producer):
        self.transactional.pop(producer).close(timeout=5)

    def txn_copy(self, id, group, source, target, count, commit):
        consumer = KafkaConsumer(source, bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                                 isolation_level="read_committed", session_timeout_ms=6000, heartbeat_interval_ms=500)
        self.txn_open("copy", id, 30000)
        try:
            producer, read, deadline = self.transactional["copy"], 0, time.monotonic() + 40
            producer.begin_transaction()
            while read < count and time.monotonic() < deadline:
                for records in consumer.poll(timeout_ms=100).values():
                    for record in records:
                        producer.send(target, b"copy of " + record.value, partition=record.partition)
                        read += 1
            positions = {one: OffsetAndMetadata(consumer.position(one), "", -1) for one in consumer.assignment()}
            producer.send_offsets_to_transaction(positions, consumer.group_metadata())
            self.txn_end("copy", commit)
            return read
        finally:
            self.txn_close("copy")
            consumer.close(autocommit=False)


if __name__ == "__main__":
    serve(Driver())
