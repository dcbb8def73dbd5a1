"""Group member of aiokafka; its event loop runs while the member polls, which is almost always."""
import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from member import AUTO_COMMIT_MS, HEARTBEAT_MS, METADATA_MAX_AGE_MS, POLL_SECONDS, serve_member
from protocol import BOOTSTRAP, ClientError

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor}


class Listener(ConsumerRebalanceListener):
    def __init__(self, state):
        self.state = state

    async def on_partitions_assigned(self, assigned):
        self.state.assigned(assigned)

    async def on_partitions_revoked(self, revoked):
        self.state.revoke(revoked)


class Member:
    def __init__(self, options, state):
        self.state, self.loop = state, asyncio.new_event_loop()
        self.run(self.start(options))

    def run(self, what):
        try:
            return self.loop.run_until_complete(what)
        except KafkaError as error:
            code = getattr(error, "errno", None)
            raise ClientError(code if isinstance(code, int) and code > 0 else None, repr(error)) from error

    async def start(self, options):
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=BOOTSTRAP, group_id=options["group"], group_instance_id=options["instance"], auto_offset_reset=options["reset"],
            enable_auto_commit=options["commits"] == "auto", auto_commit_interval_ms=AUTO_COMMIT_MS, isolation_level=options["isolation"],
            session_timeout_ms=options["session_timeout_ms"], heartbeat_interval_ms=HEARTBEAT_MS, metadata_max_age_ms=METADATA_MAX_AGE_MS,
            partition_assignment_strategy=[ASSIGNORS[options["assignor"]]])
        await self.consumer.start()
        self.consumer.subscribe(options["topics"], listener=Listener(self.state))

    def poll(self):
        for records in self.run(self.consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=1000)).values():
            for record in records:
                self.state.take(record.topic, record.partition, record.offset, record.value)

    def assigned(self):
        return [(one.topic, one.partition) for one in self.consumer.assignment()]

    def commit(self, how, offsets):
        named = None if offsets is None else {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}
        if how == "async":
            self.loop.create_task(self.commit_later(named))
        else:
            self.run(self.consumer.commit(named))

    async def commit_later(self, offsets):
        try:
            await self.consumer.commit(offsets)
        except KafkaError as error:
            self.state.fail(getattr(error, "errno", None), f"commit: {error!r}")

    def committed(self, topic, partition):
        offset = self.run(self.consumer.committed(TopicPartition(topic, partition)))
        return -1 if offset is None else offset

    def pause(self, topic, partition):
        self.inside(self.consumer.pause, TopicPartition(topic, partition))

    def resume(self, topic, partition):
        self.inside(self.consumer.resume, TopicPartition(topic, partition))

    def inside(self, function, *arguments):
        """Some of the client's plain functions want a running loop."""
        async def call():
            function(*arguments)
        self.run(call())

    def seek(self, topic, partition, to):
        where = TopicPartition(topic, partition)
        if to == "earliest":
            self.run(self.consumer.seek_to_beginning(where))
        elif to == "latest":
            self.run(self.consumer.seek_to_end(where))
        else:
            self.inside(self.consumer.seek, where, self.run(self.consumer.offsets_for_times({where: to["ts"]}))[where].offset if isinstance(to, dict) else to)

    def close(self):
        self.run(self.consumer.stop())
        self.loop.close()


if __name__ == "__main__":
    serve_member(Member, lambda: f"aiokafka {aiokafka.__version__}")
