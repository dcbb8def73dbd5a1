"""What every client is asked, and what it must see. Each check is a function of the session; its needs say which families run it."""
import threading
import time

from suite.driver import KafkaError
from suite.gathering import gather
from suite.records import bulk_digest, expect_same, record, sample

CHECKS = []
check = gather(CHECKS)


def can(*operations):
    return lambda family: all(operation in family.admin for operation in operations)


def consumes(family):
    return family.consumes


class Session:
    """One family under test. `steward` is another client that prepares topics, and reads for clients that only write."""

    def __init__(self, family, driver, steward, steward_family, run_id):
        self.family, self.driver, self.steward, self.steward_family = family, driver, steward, steward_family
        self.prefix, self.number = f"{family.name}-{run_id}", 0
        self.reader = driver if family.consumes else steward
        self.reader_family = family if family.consumes else steward_family

    def topic(self, partitions=1, **configs):
        name = self.name()
        self.steward.call("create_topic", topic=name, partitions=partitions,
                          configs={key.replace("_", "."): value for key, value in configs.items()})
        for partition in range(partitions):  # Kafka answers before every partition has its leader
            eventually(lambda: self.steward.call("watermarks", topic=name, partition=partition))
        return name

    def name(self):
        self.number += 1
        return f"{self.prefix}-{self.number}"

    def produce(self, topic, records, partition=0, compression="none", idempotent=False, acks=-1, each=False, by=None):
        return (by or self.driver).call("produce", topic=topic, partition=partition, records=records, compression=compression,
                                        idempotent=idempotent, acks=acks, each=each)

    def consume(self, topic, count, offset="earliest", partition=0, timeout_ms=15000, by=None):
        return (by or self.reader).call("consume", timeout=timeout_ms / 1000 + 30, topic=topic, partition=partition, offset=offset, count=count,
                                timeout_ms=timeout_ms)

    def bulk(self, count, size, compression="none", idempotent=False):
        topic = self.topic()
        first = self.driver.call("produce_bulk", timeout=150, topic=topic, partition=0, count=count, bytes=size, compression=compression,
                                 idempotent=idempotent)
        equal(first, 0, "offset of the first record")
        self.expect_bulk(topic, count, size)

    def expect_bulk(self, topic, count, size):
        got = self.reader.call("consume_bulk", timeout=150, topic=topic, partition=0, offset="earliest", count=count, timeout_ms=60000)
        equal(got, {"count": count, "contiguous": True, "sha256": bulk_digest(count, size)}, "what was read back")


def equal(got, want, what):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, expected {want!r}")


def refused(code, what, run):
    try:
        answer = run()
    except KafkaError as error:
        if error.code != code:
            raise AssertionError(f"{what} was refused with {error}, expected code {code}") from None
        return
    raise AssertionError(f"{what} succeeded with {answer!r}, expected error {code}")


def eventually(run, seconds=10):
    """Repeats `run` until it does not raise: for what a client's cached metadata may lag behind."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return run()
        except (AssertionError, KafkaError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def content(session, compression, each):
    topic, written = session.topic(), sample(session.family, compression)
    offsets = session.produce(topic, written, compression=compression, each=each)
    equal([offset for offset in offsets if offset is not None], [i for i, offset in enumerate(offsets) if offset is not None], "acknowledged offsets")
    expect_same(session.reader_family, written, session.consume(topic, len(written)))


for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
    check(f"content, {codec}", lambda family, codec=codec: codec in family.compressions)(
        lambda session, codec=codec: content(session, codec, each=False))


@check("content, a request per record")
def content_each(session):
    content(session, "none", each=True)


@check("a batch read from its middle", consumes)
def from_the_middle(session):
    topic, written = session.topic(), sample(session.family)
    session.produce(topic, written, compression="gzip")
    expect_same(session.reader_family, written[3:], session.consume(topic, len(written) - 3, offset=3), first_offset=3)


@check("several partitions keep apart, each in order")
def partitions(session):
    topic = session.topic(partitions=4)
    for turn in range(3):
        for partition in range(4):
            session.produce(topic, [record(b"%d" % turn, b"%d/%d" % (partition, turn))], partition=partition)
    for partition in range(4):
        expect_same(session.reader_family, [record(b"%d" % turn, b"%d/%d" % (partition, turn)) for turn in range(3)],
                    session.consume(topic, 3, partition=partition))


@check("the client's own partitioner loses nothing")
def partitioner(session):
    topic, values = session.topic(partitions=3), [b"%d" % number for number in range(30)]
    session.produce(topic, [record(value, value) for value in values], partition=None)
    found = []
    for partition in range(3):
        count = session.steward.call("watermarks", topic=topic, partition=partition)[1]
        if count:
            found += [got["v"] for got in session.consume(topic, count, partition=partition)]
    equal(sorted(found), sorted(record(None, value)["v"] for value in values), "values of all partitions")


@check("LogAppendTime is the broker's time")
def log_append_time(session):
    topic, before = session.topic(message_timestamp_type="LogAppendTime"), time.time() * 1000
    for turn in range(2):
        session.produce(topic, sample(session.family)[:3], compression=["none", "gzip"][turn])
    after = time.time() * 1000
    reader = session.reader if session.reader_family.append_time else session.steward
    for got in session.consume(topic, 6, by=reader):
        if not before - 50 <= got["ts"] <= after + 50:
            raise AssertionError(f"time {got['ts']} is not between {before} and {after}")
        if got["tt"] not in (None, "append"):
            raise AssertionError(f"type of time: {got['tt']}, expected append")


@check("acks=1")
def acks_one(session):
    topic = session.topic()
    session.produce(topic, [record(None, b"a")], acks=1)
    expect_same(session.reader_family, [record(None, b"a")], session.consume(topic, 1))


@check("acks=0", lambda family: family.acks_zero)
def acks_zero(session):
    topic, written = session.topic(), [record(None, b"%d" % number) for number in range(20)]
    session.produce(topic, written, acks=0)
    expect_same(session.reader_family, written, session.consume(topic, 20))


@check("idempotent producer", lambda family: family.idempotent)
def idempotent(session):
    topic, written = session.topic(), [record(b"k", b"%d" % number) for number in range(40)]
    for at in range(0, 40, 10):
        session.produce(topic, written[at:at + 10], idempotent=True, each=at >= 20)
    expect_same(session.reader_family, written, session.consume(topic, 40))


@check("idempotent producer, 20,000 compressed records", lambda family: family.idempotent)
def idempotent_bulk(session):
    session.bulk(20_000, 100, "lz4" if "lz4" in session.family.compressions else "gzip", idempotent=True)


@check("50,000 records")
def many_records(session):
    session.bulk(50_000, 120)


@check("a 900 KB record")
def large_record(session):
    for codec in ("none", "zstd"):
        session.bulk(1, session.family.bulk_bytes, codec)


@check("20 records of 300 KB")
def large_records(session):
    session.bulk(20, 300_000)


@check("fetches that are smaller than a batch, over more data than is in memory", lambda family: family.name == "confluent-kafka")
def small_fetches(session):
    """Batches of 900 KB leave memory while they are half written; each must still come, whatever its size (KIP-74), and
    without a fetch that waits for more: such a one would wait for longer than the whole reading may take."""
    topic, partitions, count, size = session.topic(partitions=30), 30, 30, 300_000
    want = {"count": count, "contiguous": True, "sha256": bulk_digest(count, size)}
    for partition in range(partitions):
        session.driver.call("produce_bulk", timeout=150, topic=topic, partition=partition, count=count, bytes=size, compression="none", idempotent=False)
        got = session.driver.call("consume_bulk", timeout=100, topic=topic, partition=partition, offset="earliest", count=count, timeout_ms=45000,
                                  fetch_bytes=1000, fetch_wait_ms=60000)
        equal(got, want, f"what was read from partition {partition}")
    session.steward.call("delete_topic", topic=topic)


@check("a record over max.message.bytes is refused")
def too_large(session):
    topic = session.topic(max_message_bytes="20000")
    refused(10, "a record of 50 KB", lambda: session.produce(topic, [record(b"k", bytes(50_000))]))
    session.produce(topic, [record(b"k", b"small")])
    expect_same(session.reader_family, [record(b"k", b"small")], session.consume(topic, 1))


@check("earliest and latest", lambda family: family.watermarks)
def watermarks(session):
    topic = session.topic(partitions=2)
    equal(session.driver.call("watermarks", topic=topic, partition=1), [0, 0], "offsets of an empty partition")
    session.produce(topic, [record(None, b"%d" % number) for number in range(7)], partition=1)
    equal(session.driver.call("watermarks", topic=topic, partition=1), [0, 7], "offsets after 7 records")
    session.steward.call("delete_records", topic=topic, partition=1, before=3)
    equal(session.driver.call("watermarks", topic=topic, partition=1), [3, 7], "offsets after 3 were deleted")
    if session.family.consumes:
        equal([got["o"] for got in session.consume(topic, 4, partition=1)], [3, 4, 5, 6], "offsets read from the earliest on")


@check("offsets by time", lambda family: family.time_offsets)
def offsets_by_time(session):
    base = int(time.time() * 1000) - 3_600_000
    records = [record(None, b"%d" % number, ts=base + 1000 * number) for number in range(60)]
    for codec, each in (("none", True), ("gzip", False)):
        topic = session.topic()
        session.produce(topic, records, compression=codec, each=each, by=session.steward)
        for ts, offset in ((base - 5000, 0), (base, 0), (base + 30_000, 30), (base + 29_500, 30), (base + 59_000, 59), (base + 59_001, -1)):
            equal(session.driver.call("offset_for_time", topic=topic, partition=0, ts=ts), offset, f"offset at {ts - base} ms, {codec}")


@check("a waiting fetch is answered when a record comes", consumes)
def long_poll(session):
    """A fetch that nobody wakes is late every time; a busy machine is not."""
    late = [wait_for_a_record(session)]
    while late[-1] > 1.5 and len(late) < 4:
        late.append(wait_for_a_record(session))
    if late[-1] > 1.5:
        raise AssertionError(f"the record was read {', '.join(f'{seconds:.1f}' for seconds in late)} s after it was written")


def wait_for_a_record(session):
    """Writes a record while a fetch waits for it; answers after how many seconds it was read."""
    topic, answered = session.topic(), {}

    def wait():
        try:
            answered["records"] = session.driver.call("consume", timeout=40, topic=topic, partition=0, offset=0, count=1, timeout_ms=20000)
        except Exception as error:  # raised again by the thread that checks
            answered["error"] = error
        answered["at"] = time.monotonic()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(2.5)
    session.produce(topic, [record(b"k", b"late")], by=session.steward)
    produced = time.monotonic()
    waiting.join()
    if "error" in answered:
        raise answered["error"]
    expect_same(session.family, [record(b"k", b"late")], answered["records"])
    return answered["at"] - produced


@check("latest begins at the end", consumes)
def from_latest(session):
    topic, answered = session.topic(), {}
    session.produce(topic, [record(None, b"old")])
    waiting = threading.Thread(target=lambda: answered.update(records=session.driver.call(
        "consume", timeout=40, topic=topic, partition=0, offset="latest", count=1, timeout_ms=15000)))
    waiting.start()
    time.sleep(2)
    session.produce(topic, [record(None, b"new")], by=session.steward)
    waiting.join()
    expect_same(session.family, [record(None, b"new")], answered["records"], first_offset=1)


@check("an offset outside the log is refused", lambda family: family.out_of_range)
def out_of_range(session):
    topic = session.topic()
    session.produce(topic, [record(None, b"only")])
    refused(1, "a fetch at offset 100", lambda: session.consume(topic, 1, offset=100, timeout_ms=8000))


@check("a topic is made on first use")
def auto_creation(session):
    topic = session.name()
    eventually(lambda: session.produce(topic, [record(b"k", b"first")]), 15)
    got = session.consume(topic, 1)
    equal(got[0]["v"], record(None, b"first")["v"], "value")


@check("create, list, describe and delete a topic", can("create_topic", "delete_topic", "list_topics", "describe_topic"))
def topic_life(session):
    topic, driver = session.name(), session.driver
    driver.call("create_topic", topic=topic, partitions=3, configs={"retention.ms": "7200000"})
    eventually(lambda: equal(topic in driver.call("list_topics"), True, "topic is listed"))
    eventually(lambda: equal(driver.call("describe_topic", topic=topic), 3, "partitions"))
    equal(session.steward.call("describe_configs", topic=topic)["retention.ms"], "7200000", "retention.ms as created")
    driver.call("delete_topic", topic=topic)
    eventually(lambda: equal(topic in session.steward.call("list_topics"), False, "deleted topic is listed"))
    driver.call("create_topic", topic=topic, partitions=1, configs={})
    eventually(lambda: equal(driver.call("describe_topic", topic=topic), 1, "partitions of the new topic of that name"))
    session.produce(topic, [record(None, b"fresh")])
    expect_same(session.reader_family, [record(None, b"fresh")], session.consume(topic, 1))


@check("list and describe topics", can("list_topics", "describe_topic"))
def listing(session):
    topic = session.topic(partitions=5)
    eventually(lambda: equal(topic in session.driver.call("list_topics"), True, "topic is listed"))
    equal(session.driver.call("describe_topic", topic=topic), 5, "partitions")


@check("creating a topic that exists is refused", can("create_topic"))
def topic_exists(session):
    topic = session.topic()
    refused(36, "a second topic of that name", lambda: session.driver.call("create_topic", topic=topic, partitions=1, configs={}))


@check("an invalid topic name is refused", can("create_topic"))
def invalid_topic(session):
    refused(17, "a topic named 'no/slash'", lambda: session.driver.call("create_topic", topic="no/slash", partitions=1, configs={}))


@check("a wrong topic config is refused", can("create_topic"))
def invalid_config(session):
    refused(40, "retention.ms=soon", lambda: session.driver.call("create_topic", topic=session.name(), partitions=1, configs={"retention.ms": "soon"}))


@check("an unknown topic is refused", can("describe_topic", "delete_topic"))
def unknown_topic(session):
    if not session.family.describing_creates:
        refused(3, "describing", lambda: session.driver.call("describe_topic", topic=session.name()))
    refused(3, "deleting", lambda: session.driver.call("delete_topic", topic=session.name()))


@check("alter and describe topic configs", can("describe_configs", "alter_config"))
def configs(session):
    topic = session.topic()
    before = session.driver.call("describe_configs", topic=topic)
    equal(before["cleanup.policy"], "delete", "cleanup.policy")
    equal(before["max.message.bytes"], "1048588", "max.message.bytes")
    session.driver.call("alter_config", topic=topic, key="max.message.bytes", value="30000")
    eventually(lambda: equal(session.driver.call("describe_configs", topic=topic)["max.message.bytes"], "30000", "max.message.bytes"))
    refused(10, "a record of 50 KB", lambda: session.produce(topic, [record(None, bytes(50_000))], by=session.steward))
    refused(40, "max.message.bytes=many", lambda: session.driver.call("alter_config", topic=topic, key="max.message.bytes", value="many"))


@check("add partitions", can("create_partitions"))
def more_partitions(session):
    topic = session.topic(partitions=2)
    session.driver.call("create_partitions", topic=topic, total=5)
    eventually(lambda: equal(session.steward.call("describe_topic", topic=topic), 5, "partitions"))
    refused(37, "fewer partitions", lambda: session.driver.call("create_partitions", topic=topic, total=3))
    eventually(lambda: session.produce(topic, [record(None, b"in the new one")], partition=4))
    expect_same(session.reader_family, [record(None, b"in the new one")], session.consume(topic, 1, partition=4))


@check("delete records", can("delete_records"))
def delete_records(session):
    topic, written = session.topic(), [record(None, b"%d" % number) for number in range(10)]
    session.produce(topic, written)
    equal(session.driver.call("delete_records", topic=topic, partition=0, before=6), 6, "first offset left")
    expect_same(session.reader_family, written[6:], session.consume(topic, 4), first_offset=6)
    refused(1, "deleting beyond the end", lambda: session.driver.call("delete_records", topic=topic, partition=0, before=99))
