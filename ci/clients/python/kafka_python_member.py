"""Group member of kafka-python."""
import kafka
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.structs import OffsetAndMetadata

from kafka_python import reporting
from member import AUTO_COMMIT_MS, HEARTBEAT_MS, METADATA_MAX_AGE_MS, serve_member
from protocol import BOOTSTRAP

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor,
             "cooperative-sticky": CooperativeStickyAssignor}
# A poll whose time ends while a SyncGroup is on its way forgets what that is answered, and the member keeps its old partitions for good
# (kafka-python 3.0.12): so polls are long, and end early only when records come.
POLL_MS = 1000


class Listener(ConsumerRebalanceListener):
    def __init__(self, state):
        self.state = state

    def on_partitions_assigned(self, assigned):
        self.state.assigned(assigned)

    def on_partitions_revoked(self, revoked):
        self.state.revoke(revoked)


class Member:
    def __init__(self, options, state):
        self.state, self.auto = state, options["commits"] == "auto"
        self.consumer = KafkaConsumer(
            bootstrap_servers=BOOTSTRAP, group_id=options["group"], group_instance_id=options["instance"], auto_offset_reset=options["reset"],
            enable_auto_commit=self.auto, auto_commit_interval_ms=AUTO_COMMIT_MS, isolation_level=options["isolation"],
            session_timeout_ms=options["session_timeout_ms"], heartbeat_interval_ms=HEARTBEAT_MS, metadata_max_age_ms=METADATA_MAX_AGE_MS,
            partition_assignment_strategy=[ASSIGNORS[options["assignor"]]])
        self.consumer.subscribe(options["topics"], listener=Listener(state))

    @reporting
    def poll(self):
        for records in self.consumer.poll(timeout_ms=POLL_MS, max_records=1000).values():
            for record in records:
                self.state.take(record.topic, record.partition, record.offset, record.value)

    def assigned(self):
        return [(one.topic, one.partition) for one in self.consumer.assignment()]

    @reporting
    def commit(self, how, offsets):
        named = None if offsets is None else {TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1) for topic, partition, offset in offsets}
        if how == "async":
            self.consumer.commit_async(named, callback=self.committed_async)
        else:
            self.consumer.commit(named)

    def committed_async(self, _offsets, response):
        if isinstance(response, Exception):
            self.state.fail(getattr(response, "errno", None), f"commit: {response!r}")

    @reporting
    def committed(self, topic, partition):
        offset = self.consumer.committed(TopicPartition(topic, partition))
        return -1 if offset is None else offset

    def pause(self, topic, partition):
        self.consumer.pause(TopicPartition(topic, partition))

    def resume(self, topic, partition):
        self.consumer.resume(TopicPartition(topic, partition))

    @reporting
    def seek(self, topic, partition, to):
        where = TopicPartition(topic, partition)
        if to == "earliest":
            self.consumer.seek_to_beginning(where)
        elif to == "latest":
            self.consumer.seek_to_end(where)
        else:
            self.consumer.seek(where, self.consumer.offsets_for_times({where: to["ts"]})[where].offset if isinstance(to, dict) else to)

    @reporting
    def close(self):
        self.consumer.close(autocommit=self.auto)


if __name__ == "__main__":
    serve_member(Member, lambda: f"kafka-python {kafka.__version__}")
