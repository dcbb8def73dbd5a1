"""Transactions: what producers commit, abort and leave open, what readers of either isolation then see, and who is fenced."""
import time

from suite.checks import equal, eventually
from suite.driver import KafkaError, decode, encode
from suite.gathering import gather

FENCED = (47, 90)  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED: which of them depends on the request's version
PRODUCERS, READERS, STEWARD = [], [], []


def check(name, into, needs=lambda family: True):
    return gather(into)(name, needs)


class Producer:
    """A transactional producer inside a driver; the driver knows it by name."""

    def __init__(self, driver, name, id, timeout_ms=60000):
        self.driver, self.name = driver, name
        driver.call("txn_open", producer=name, id=id, timeout_ms=timeout_ms)

    def begin(self):
        self.driver.call("txn_begin", producer=self.name)

    def send(self, topic, *values, partition=0):
        self.driver.call("txn_send", producer=self.name, topic=topic, partition=partition, values=[encode(value) for value in values])

    def end(self, commit=True):
        self.driver.call("txn_end", producer=self.name, commit=commit)

    def close(self):
        self.driver.call("txn_close", producer=self.name)

    def transaction(self, topic, *values, partition=0, commit=True):
        self.begin()
        self.send(topic, *values, partition=partition)
        self.end(commit)


def plain(session, topic, *values, partition=0):
    session.steward.call("produce", topic=topic, partition=partition, records=[{"k": None, "v": encode(value), "h": [], "ts": None} for value in values],
                         compression="none", idempotent=False, acks=-1, each=False)


def expect_visible(driver, topic, isolation, wanted, partition=0, markers=()):
    """A reader sees exactly `wanted`, [(offset, value)], and no record more; a slow machine gets more time before records count as missing.
    `markers` are offsets of markers that this client shows, whatever their value."""
    wanted = sorted(wanted + [(offset, b"") for offset in markers])
    for timeout_ms in (3000, 8000, 20000):
        answer = driver.call("consume", timeout=60, topic=topic, partition=partition, offset="earliest", count=len(wanted) + 1, timeout_ms=timeout_ms,
                             isolation=isolation)
        got = [(one["o"], b"" if one["o"] in markers else decode(one["v"])) for one in answer]
        if len(got) >= len(wanted):
            break
    equal(got, wanted, f"what {isolation} sees")


def until_end(session, topic, offset, partition=0):
    """Waits for markers: a transaction's end is answered before they are written, so another client's records may come before them."""
    eventually(lambda: equal(session.steward.call("watermarks", topic=topic, partition=partition)[1], offset, f"last stable offset of {topic}-{partition}"))


def fenced(what, run):
    try:
        run()
    except KafkaError as error:
        if error.code not in FENCED:
            raise AssertionError(f"{what} was refused with {error}, expected one of the codes {FENCED}") from None
        return
    raise AssertionError(f"{what} succeeded, expected one of the codes {FENCED}")


@check("commit and abort", PRODUCERS)
def commit_and_abort(session):
    topic = session.topic(2)
    producer = Producer(session.driver(), "p", session.name())
    producer.begin()
    producer.send(topic, b"one", b"two")
    producer.send(topic, b"other", partition=1)
    producer.end()
    producer.transaction(topic, b"aborted", b"also", commit=False)
    producer.transaction(topic, b"three")
    producer.begin()
    producer.send(topic, b"four")
    plain(session, topic, b"beside")
    committed, rest = [(0, b"one"), (1, b"two"), (6, b"three")], [(8, b"four"), (9, b"beside")]
    expect_visible(session.steward, topic, "read_uncommitted", committed[:2] + [(3, b"aborted"), (4, b"also"), (6, b"three")] + rest)
    expect_visible(session.steward, topic, "read_committed", committed)
    expect_visible(session.steward, topic, "read_committed", [(0, b"other")], partition=1)
    producer.end()
    expect_visible(session.steward, topic, "read_committed", committed + rest)
    producer.close()


@check("an empty transaction, and 20 after it", PRODUCERS)
def many(session):
    topic = session.topic(1)
    producer = Producer(session.driver(), "p", session.name())
    producer.begin()
    producer.end()
    wanted, offset = [], 0
    for number in range(20):
        commit = number % 3 != 1
        producer.transaction(topic, b"%d" % number, commit=commit)
        if commit:
            wanted.append((offset, b"%d" % number))
        offset += 2
    expect_visible(session.steward, topic, "read_committed", wanted)
    producer.close()


@check("consumed offsets commit and abort with the transaction", PRODUCERS)
def offsets(session):
    source, target, group, id = session.topic(2), session.topic(2), session.name(), session.name()
    session.write(source, 6)
    driver = session.driver()
    copy = lambda count, commit: equal(driver.call("txn_copy", timeout=100, id=id, group=group, source=source, target=target, count=count, commit=commit), count,
                                       "records read")
    copy(12, False)
    equal([session.committed(group, source, partition) for partition in (0, 1)], [-1, -1], "committed offsets after the abort")
    copy(12, True)
    session.until_committed(group, {(source, partition): 6 for partition in (0, 1)})
    session.write(source, 2)
    copy(4, True)
    session.until_committed(group, {(source, partition): 8 for partition in (0, 1)})
    for partition in (0, 1):
        answer = session.steward.call("consume", timeout=60, topic=target, partition=partition, offset="earliest", count=8, timeout_ms=20000, isolation="read_committed")
        equal([decode(one["v"]) for one in answer], [b"copy of " + value for _, value in session.written[source, partition]], f"copies in partition {partition}")


@check("an older producer of the same id is fenced", PRODUCERS)
def fencing(session):
    topic, id = session.topic(1), session.name()
    older = Producer(session.driver(), "p", id)
    older.begin()
    older.send(topic, b"never seen")
    newer = Producer(session.driver(), "p", id)
    newer.transaction(topic, b"seen")
    fenced("the older producer's commit", older.end)
    newer.transaction(topic, b"also seen")
    expect_visible(session.steward, topic, "read_committed", [(2, b"seen"), (4, b"also seen")])
    newer.close()
    older.driver.kill()


@check("what the reader sees of committed, aborted and open transactions", READERS)
def isolation(session):
    topic, steward = session.topic(1), session.steward
    first, second = Producer(steward, session.name(), session.name()), Producer(steward, session.name(), session.name())
    plain(session, topic, b"0")
    first.transaction(topic, b"1", b"2")
    first.transaction(topic, b"4", b"5", commit=False)
    until_end(session, topic, 7)
    plain(session, topic, b"7")
    first.begin()
    second.begin()
    first.send(topic, b"8")
    second.send(topic, b"9")
    plain(session, topic, b"10")
    first.send(topic, b"11")
    second.end(commit=False)
    first.end()
    until_end(session, topic, 14)
    first.begin()
    first.send(topic, b"14")
    plain(session, topic, b"15")
    visible = lambda *offsets: [(offset, b"%d" % offset) for offset in offsets]
    everything = visible(0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 14, 15)
    aborted = () if session.family.filters_aborted else (4, 5, 9)
    stable = visible(*sorted((0, 1, 2, 7, 8, 10, 11, *aborted)))
    if session.family.consumes:
        reader, markers = session.driver(), () if session.family.hides_markers else (3, 6, 12, 13)
        expect_visible(reader, topic, "read_uncommitted", everything, markers=markers)
        expect_visible(reader, topic, "read_committed", stable, markers=markers)
        first.end()
        until_end(session, topic, 17)
        expect_visible(reader, topic, "read_committed", stable + visible(14, 15), markers=markers and (*markers, 16))
    else:
        dirty, clean = (session.member(session.name(), [topic], isolation=level) for level in ("read_uncommitted", "read_committed"))
        session.until_read([dirty], {(topic, 0): everything})
        session.until_read([clean], {(topic, 0): stable})
        first.end()
        session.until_read([clean], {(topic, 0): stable + visible(14, 15)})
    first.close()
    second.close()


@check("a transaction that is left open is aborted after its time", STEWARD)
def timeout(session):
    topic = session.topic(1)
    producer = Producer(session.steward, session.name(), session.name(), timeout_ms=2000)
    producer.begin()
    producer.send(topic, b"late")
    plain(session, topic, b"beside")
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        answer = session.steward.call("consume", timeout=60, topic=topic, partition=0, offset="earliest", count=1, timeout_ms=1000, isolation="read_committed")
        if answer:
            break
    expect_visible(session.steward, topic, "read_committed", [(1, b"beside")])
    fenced("the commit of a transaction that timed out", producer.end)
    session.steward.kill()


@check("a group waits for offsets whose transaction is open", STEWARD)
def pending_offsets(session):
    """KIP-447: a member that takes over asks for stable offsets, and must not read on from the ones before the open transaction."""
    source, target, group, id = session.topic(1), session.topic(1), session.name(), session.name()
    session.write(source, 5)
    copier = session.driver()
    copier.call("txn_copy_open", timeout=100, id=id, group=group, source=source, target=target, count=5)
    member = session.member(group, [source], isolation="read_committed")
    session.until_share([source], [member])
    time.sleep(2)  # a member that did not wait has read by now
    equal(member.look().records, {}, "records read while the offsets are pending")
    copier.call("txn_end", producer="copy", commit=True)
    session.write(source, 2)
    session.until_read([member], session.since(source, 5))


@check("a transaction over 30 partitions, killed and taken over", STEWARD)
def taken_over(session):
    topic, id = session.topic(30), session.name()
    older = Producer(session.driver(), "p", id)
    older.begin()
    for partition in range(30):
        older.send(topic, b"lost", partition=partition)
    older.driver.kill()
    newer = Producer(session.driver(), "p", id)
    newer.begin()
    for partition in range(30):
        newer.send(topic, b"kept", partition=partition)
    newer.end()
    for partition in range(30):
        answer = eventually(lambda: session.steward.call("consume", timeout=60, topic=topic, partition=partition, offset="earliest", count=1, timeout_ms=20000,
                                                         isolation="read_committed"))
        equal([(one["o"], decode(one["v"])) for one in answer], [(2, b"kept")], f"what is committed in partition {partition}")
