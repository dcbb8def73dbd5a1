"""kafka-transactions on producers whose state is known."""
import re

from suite.checks import equal
from suite.gathering import gather
from suite.tools import contains, run
from suite.transactions import Producer, expect_visible, fenced, plain

CHECKS = []
check = gather(CHECKS)


def rows(session, *arguments):
    """The table the tool prints, one dictionary a row."""
    lines = run("kafka-transactions", "--bootstrap-server", session.pool.bootstrap, *arguments).splitlines()
    names = lines[0].split()
    return [dict(zip(names, re.split(r"\s+", line.strip()))) for line in lines[1:] if line.strip()]


def ongoing(session, topic, *values):
    id = session.name()
    producer = Producer(session.steward, id, id, timeout_ms=600_000)  # outlives the slowest tools
    producer.id = id
    producer.begin()
    producer.send(topic, *values)
    return producer


@check("kafka-transactions list and describe")
def describe(session):
    topic = session.topic(2)
    done, open_one = Producer(session.steward, session.name(), f"{session.prefix}-done"), ongoing(session, topic, b"open")
    done.transaction(topic, b"done", partition=1)
    listed = {row["TransactionalId"]: row for row in rows(session, "list", "--transactional-id-pattern", f"{session.prefix}-.*")}
    equal({id: row["TransactionState"] for id, row in listed.items()}, {f"{session.prefix}-done": "CompleteCommit", open_one.id: "Ongoing"}, "states")
    row = rows(session, "describe", "--transactional-id", open_one.id)[0]
    equal((row["TransactionalId"], row["TransactionState"], row["TransactionTimeoutMs"], row["TopicPartitions"], row["ProducerId"]),
          (open_one.id, "Ongoing", "600000", f"{topic}-0", listed[open_one.id]["ProducerId"]), "the open transaction")
    row = rows(session, "describe-producers", "--topic", topic, "--partition", 0)[0]
    equal((row["ProducerId"], row["LastSequence"], row["CurrentTransactionStartOffset"]), (listed[open_one.id]["ProducerId"], "0", "0"), "the partition's producer")
    row = rows(session, "describe-producers", "--topic", topic, "--partition", 1)[0]
    equal((row["ProducerId"], row["CurrentTransactionStartOffset"]), (listed[f"{session.prefix}-done"]["ProducerId"], "None"), "the other partition's producer")
    equal(rows(session, "find-hanging", "--topic", topic), [], "hanging transactions")
    contains(run("kafka-transactions", "--bootstrap-server", session.pool.bootstrap, "describe", "--transactional-id", session.name(), fails=None),
             "TransactionalIdNotFound|not found|could not be found")
    open_one.end()
    done.close()
    open_one.close()


@check("kafka-transactions abort of an open transaction in one partition")
def abort(session):
    topic = session.topic(1)
    plain(session, topic, b"before")
    ongoing(session, topic, b"aborted by hand")
    plain(session, topic, b"after")
    expect_visible(session.steward, topic, "read_committed", [(0, b"before")])
    run("kafka-transactions", "--bootstrap-server", session.pool.bootstrap, "abort", "--topic", topic, "--partition", 0, "--start-offset", 1)
    expect_visible(session.steward, topic, "read_committed", [(0, b"before"), (2, b"after")])
    session.steward.kill()


@check("kafka-transactions forceTerminateTransaction")
def force_terminate(session):
    topic = session.topic(1)
    producer = ongoing(session, topic, b"terminated")
    plain(session, topic, b"after")
    run("kafka-transactions", "--bootstrap-server", session.pool.bootstrap, "forceTerminateTransaction", "--transactionalId", producer.id)
    expect_visible(session.steward, topic, "read_committed", [(1, b"after")])
    fenced("the commit of a transaction that was terminated", producer.end)
    session.steward.kill()
