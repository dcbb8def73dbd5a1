"""Driver for aiokafka."""
import asyncio
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, ProducerFenced, for_code

from protocol import BOOTSTRAP, FETCH_WAIT_MS, REQUEST_BYTES_MAX, BulkReading, ClientError, bulk_value, decode, encode, serve


def raise_for(code, message):
    if code:
        raise for_code(code)(message)


class Operations:
    """The operations, asynchronous, as the client's own interface is."""

    def __init__(self):
        self.made_admin, self.producers, self.transactional = None, {}, {}

    async def version(self):
        return f"aiokafka {aiokafka.__version__}"

    async def admin(self):
        if self.made_admin is None:
            self.made_admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
            await self.made_admin.start()
        return self.made_admin

    async def create_topic(self, topic, partitions, configs):
        answer = await (await self.admin()).create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        for _, code, *message in answer.topic_errors:
            raise_for(code, message)

    async def delete_topic(self, topic):
        answer = await (await self.admin()).delete_topics([topic])
        for _, code in answer.topic_error_codes:
            raise_for(code, topic)

    async def list_topics(self):
        return await (await self.admin()).list_topics()

    async def describe_topic(self, topic):
        described = (await (await self.admin()).describe_topics([topic]))[0]
        raise_for(described["error_code"], topic)
        return len(described["partitions"])

    async def describe_configs(self, topic):
        answers = await (await self.admin()).describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        for answer in answers:
            for code, message, _, _, entries in answer.resources:
                raise_for(code, message)
                return {entry[0]: entry[1] for entry in entries}

    async def alter_config(self, topic, key, value):
        answers = await (await self.admin()).alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={key: value})])
        for answer in answers:
            for code, message, *_ in answer.resources:
                raise_for(code, message)

    async def create_partitions(self, topic, total):
        answer = await (await self.admin()).create_partitions({topic: NewPartitions(total)})
        for _, code, message in answer.topic_errors:
            raise_for(code, message)

    async def delete_records(self, topic, partition, before):
        asked = TopicPartition(topic, partition)
        return (await (await self.admin()).delete_records({asked: RecordsToDelete(before)}))[asked]

    async def producer(self, compression, idempotent, acks):
        key = (compression, idempotent, acks)
        if key not in self.producers:
            self.producers[key] = AIOKafkaProducer(
                bootstrap_servers=BOOTSTRAP, compression_type=None if compression == "none" else compression, enable_idempotence=idempotent,
                acks="all" if acks == -1 else acks, linger_ms=20, max_request_size=REQUEST_BYTES_MAX, max_batch_size=200_000)
            await self.producers[key].start()
        return self.producers[key]

    async def produce(self, topic, partition, records, compression, idempotent, acks, each):
        producer, futures = await self.producer(compression, idempotent, acks), []
        for record in records:
            futures.append(await producer.send(topic, decode(record["v"]), decode(record["k"]), partition, record["ts"],
                                               [(name, decode(value)) for name, value in record["h"]]))
            if each:
                await producer.flush()
        sent = await asyncio.gather(*futures)
        return [one.offset if one is not None and one.offset >= 0 else None for one in sent]

    async def produce_bulk(self, topic, partition, count, bytes, compression, idempotent):
        producer = await self.producer(compression, idempotent, -1)
        futures = [await producer.send(topic, bulk_value(index, bytes), partition=partition) for index in range(count)]
        return (await asyncio.gather(*futures))[0].offset

    async def messages(self, topic, partition, offset, count, timeout_ms, isolation="read_uncommitted"):
        consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None, isolation_level=isolation, auto_offset_reset="none", fetch_max_wait_ms=FETCH_WAIT_MS,
                                    max_partition_fetch_bytes=REQUEST_BYTES_MAX, fetch_max_bytes=REQUEST_BYTES_MAX)
        await consumer.start()
        try:
            assigned = TopicPartition(topic, partition)
            consumer.assign([assigned])
            if offset == "earliest":
                await consumer.seek_to_beginning(assigned)
            elif offset == "latest":
                await consumer.seek_to_end(assigned)
            else:
                consumer.seek(assigned, offset)
            deadline = time.monotonic() + timeout_ms / 1000
            while count > 0 and time.monotonic() < deadline:
                for record in (await consumer.getmany(assigned, timeout_ms=200, max_records=min(count, 10000))).get(assigned, []):
                    count -= 1
                    yield record
        finally:
            await consumer.stop()

    async def consume(self, **arguments):
        return [{"o": record.offset, "k": encode(record.key), "v": encode(record.value), "ts": record.timestamp,
                 "tt": {0: "create", 1: "append"}[record.timestamp_type],
                 "h": [[name, encode(value)] for name, value in record.headers]} async for record in self.messages(**arguments)]

    async def consume_bulk(self, **arguments):
        reading = BulkReading()
        async for record in self.messages(**arguments):
            reading.take(record.offset, record.value)
        return reading.answer()

    async def asking(self, ask):
        consumer = AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=None)
        await consumer.start()
        try:
            return await ask(consumer)
        finally:
            await consumer.stop()

    async def watermarks(self, topic, partition):
        asked = TopicPartition(topic, partition)

        async def ask(consumer):
            return [(await consumer.beginning_offsets([asked]))[asked], (await consumer.end_offsets([asked]))[asked]]
        return await self.asking(ask)

    async def offset_for_time(self, topic, partition, ts):
        asked = TopicPartition(topic, partition)
        found = (await self.asking(lambda consumer: consumer.offsets_for_times({asked: ts})))[asked]
        return found.offset if found else -1

    async def txn_open(self, producer, id, timeout_ms):
        made = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=id, transaction_timeout_ms=timeout_ms)
        await made.start()
        self.transactional[producer] = made

    async def txn_begin(self, producer):
        await self.transactional[producer].begin_transaction()

    async def txn_send(self, producer, topic, partition, values):
        futures = [await self.transactional[producer].send(topic, decode(value), partition=partition) for value in values]
        await asyncio.gather(*futures)

    async def txn_end(self, producer, commit):
        made = self.transactional[producer]
        await (made.commit_transaction if commit else made.abort_transaction)()

    async def txn_close(self, producer):
        await self.transactional.pop(producer).stop()

    async def txn_copy(self, id, group, source, target, count, commit):
        consumer = AIOKafkaConsumer(source, bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                                    isolation_level="read_committed", session_timeout_ms=6000, heartbeat_interval_ms=500)
        await consumer.start()
        try:
            await self.txn_open("copy", id, 30000)
            producer, read, deadline = self.transactional["copy"], 0, time.monotonic() + 40
            await producer.begin_transaction()
            while read < count and time.monotonic() < deadline:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        await producer.send(target, b"copy of " + record.value, partition=record.partition)
                        read += 1
            await producer.send_offsets_to_transaction({one: await consumer.position(one) for one in consumer.assignment()}, group)
            await self.txn_end("copy", commit)
            return read
        finally:
            await self.txn_close("copy")
            await consumer.stop()


class Driver:
    """Runs one operation at a time on one event loop, so that producers and their connections live on between operations."""

    def __init__(self):
        self.loop, self.operations = asyncio.new_event_loop(), Operations()

    def __getattr__(self, name):
        def run(**arguments):
            try:
                return self.loop.run_until_complete(getattr(self.operations, name)(**arguments))
            except OffsetOutOfRangeError as error:
                raise ClientError(1, repr(error)) from error
            except ProducerFenced as error:  # the client's own, which carries no code
                raise ClientError(90, repr(error)) from error
            except KafkaError as error:
                code = getattr(error, "errno", None)
                raise ClientError(code if isinstance(code, int) and code > 0 else None, repr(error)) from error
        return run


if __name__ == "__main__":
    serve(Driver())
