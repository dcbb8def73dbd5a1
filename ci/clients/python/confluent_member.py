"""Group member of confluent-kafka (librdkafka)."""
import confluent_kafka
from confluent_kafka import Consumer, KafkaException, TopicPartition

from confluent import START, client_error
from member import AUTO_COMMIT_MS, HEARTBEAT_MS, METADATA_MAX_AGE_MS, POLL_SECONDS, serve_member
from protocol import BOOTSTRAP, ClientError

NOTHING_TO_COMMIT = confluent_kafka.KafkaError._NO_OFFSET
HIDDEN = {"fenced": 82, "instance id is still used": 111, "group id does not exist": 69}


def member_error(error):
    """A fatal error hides the broker's code, and shows it only in its text."""
    if error.code() == confluent_kafka.KafkaError._FATAL:
        for words, code in HIDDEN.items():
            if words in error.str().lower():
                return ClientError(code, error.str())
    return client_error(error)


class Member:
    def __init__(self, options, state):
        self.state = state
        config = {"bootstrap.servers": BOOTSTRAP, "group.id": options["group"], "auto.offset.reset": options["reset"],
                  "enable.auto.commit": options["commits"] == "auto", "auto.commit.interval.ms": AUTO_COMMIT_MS,
                  "isolation.level": options["isolation"], "fetch.wait.max.ms": 500, "log.connection.close": False,
                  "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS, "reconnect.backoff.max.ms": 500,
                  "on_commit": self.committed_async, "error_cb": self.failed}
        if options["protocol"] == "consumer":
            config["group.protocol"] = "consumer"
        else:
            config |= {"session.timeout.ms": options["session_timeout_ms"], "heartbeat.interval.ms": HEARTBEAT_MS,
                       "partition.assignment.strategy": options["assignor"]}
        if options["instance"]:
            config["group.instance.id"] = options["instance"]
        self.consumer = Consumer(config)
        self.consumer.subscribe(options["topics"], on_assign=lambda _, partitions: state.assigned(partitions),
                                on_revoke=lambda _, partitions: state.revoke(partitions), on_lost=lambda _, partitions: state.revoke(partitions))

    def failed(self, error):
        if error.fatal():
            told = member_error(error)
            self.state.fail(told.code, str(told))

    def committed_async(self, error, _partitions):
        if error and error.code() != NOTHING_TO_COMMIT:
            self.state.fail(error.code(), f"commit: {error.str()}")

    def poll(self):
        for message in self.consumer.consume(1000, POLL_SECONDS):
            if message.error():
                raise member_error(message.error())
            self.state.take(message.topic(), message.partition(), message.offset(), message.value())

    def assigned(self):
        return [(one.topic, one.partition) for one in self.consumer.assignment()]

    def commit(self, how, offsets):
        named = {} if offsets is None else {"offsets": [TopicPartition(*one) for one in offsets]}
        try:
            answer = self.consumer.commit(asynchronous=how == "async", **named)
        except KafkaException as error:
            # All that was read is committed already: an error to this client only.
            if offsets is None and error.args[0].code() == NOTHING_TO_COMMIT:
                return
            raise client_error(error.args[0]) from None
        for one in answer or []:
            if one.error:
                raise client_error(one.error)

    def committed(self, topic, partition):
        return max(-1, self.consumer.committed([TopicPartition(topic, partition)], timeout=20)[0].offset)

    def pause(self, topic, partition):
        self.consumer.pause([TopicPartition(topic, partition)])

    def resume(self, topic, partition):
        self.consumer.resume([TopicPartition(topic, partition)])

    def seek(self, topic, partition, to):
        if isinstance(to, dict):
            to = self.consumer.offsets_for_times([TopicPartition(topic, partition, to["ts"])], timeout=20)[0].offset
        self.consumer.seek(TopicPartition(topic, partition, START.get(to, to)))

    def close(self):
        self.consumer.close()


if __name__ == "__main__":
    serve_member(Member, lambda: f"confluent-kafka {confluent_kafka.__version__}")
