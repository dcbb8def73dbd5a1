"""kafka-consumer-groups and the other tools of Kafka that know groups, on groups that a client's members make."""
import datetime
import re
import time

from suite.checks import equal
from suite.gathering import gather
from suite.tools import contains, run

CHECKS = []
check = gather(CHECKS)


class Tool:
    """kafka-consumer-groups against the session's broker."""

    def __init__(self, session):
        self.session, self.server = session, ["--bootstrap-server", session.pool.bootstrap]

    def __call__(self, *arguments, **named):
        return run("kafka-consumer-groups", *self.server, *arguments, **named)

    def rows(self, *arguments):
        """The table the tool prints, one dictionary a row; its columns are single words but for one."""
        lines = [line for line in self(*arguments).replace("COORDINATOR (ID)", "COORDINATOR-ID").splitlines() if line.strip()]
        header = next((at for at, line in enumerate(lines) if line.startswith("GROUP ")), None)
        if header is None:
            raise AssertionError(f"no table in: {lines}")
        names = lines[header].split()
        return [dict(zip(names, re.sub(r"\s+\((\d+)\)", r"(\1)", line).split())) for line in lines[header + 1:]]


def left_group(session, count=10, partitions=2):
    """An empty group that has read a topic to its end, with records 1 s apart that are an hour old."""
    topic, group, base = session.topic(partitions), session.name(), int(time.time() * 1000) - 3_600_000
    session.write(topic, count, ts=base)
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))
    member.commit()
    session.until_committed(group, {(topic, partition): count for partition in range(partitions)})
    member.leave()
    return topic, group, base


@check("kafka-consumer-groups --list and --describe: offsets, members, state")
def describe(session):
    tool, topic, group = Tool(session), session.topic(3), session.name()
    session.write(topic, 10)
    members = [session.member(group, [topic], assignor="range"), session.member(group, [topic], assignor="range")]
    session.until_share([topic], members)
    session.until_read(members, session.since(topic, 0))
    for member in members:
        member.commit()
    session.until_committed(group, {(topic, partition): 10 for partition in range(3)})
    session.write(topic, 4, partitions=(0,))
    contains(tool("--list"), f"^{group}$")
    contains(tool("--list", "--state"), rf"^{group}\s+Stable\s*$")
    contains(tool("--list", "--type"), rf"^{group}\s+Classic\s*$")
    rows = {int(row["PARTITION"]): row for row in tool.rows("--describe", "--group", group)}
    equal({partition: (row["TOPIC"], row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) for partition, row in rows.items()},
          {0: (topic, "10", "14", "4"), 1: (topic, "10", "10", "0"), 2: (topic, "10", "10", "0")}, "offsets of each partition")
    equal((len({row["CONSUMER-ID"] for row in rows.values()}), {row["CLIENT-ID"] for row in rows.values()}), (2, {"rdkafka"}), "owners")
    rows = tool.rows("--describe", "--group", group, "--members")
    equal(sorted(row["#PARTITIONS"] for row in rows), ["1", "2"], "partitions of each member")
    verbose = tool("--describe", "--group", group, "--members", "--verbose")
    contains(verbose, rf"{topic}:0,1\b", rf"{topic}:2\b")
    row = tool.rows("--describe", "--group", group, "--state")[0]
    equal((row["STATE"], row["#MEMBERS"], row["ASSIGNMENT-STRATEGY"]), ("Stable", "2", "range"), "state")
    contains(row["COORDINATOR-ID"], r"^127\.0\.0\.1:\d+\(\d+\)$")
    for member in members:
        member.leave()
    contains(tool("--list", "--state", "Empty"), rf"^{group}\s+Empty\s*$")
    rows = tool.rows("--describe", "--group", group)
    equal({row["CONSUMER-ID"] for row in rows}, {"-"}, "owners when all have left")
    row = tool.rows("--describe", "--group", group, "--state")[0]
    equal((row["STATE"], row["#MEMBERS"] if "#MEMBERS" in row and len(row) == 5 else list(row.values())[-1]), ("Empty", "0"), "state when all have left")


@check("kafka-consumer-groups: what must be refused")
def refusals(session):
    tool, topic, group = Tool(session), session.topic(1), session.name()
    contains(tool("--describe", "--group", session.name(), fails=None), "not found")
    member = session.member(group, [topic])
    session.until_share([topic], [member])
    out = tool("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute", fails=None)
    contains(out, "inactive")
    out = tool("--delete", "--group", group, fails=None)
    contains(out, "NonEmpty|not empty|is not empty")
    out = tool("--delete", "--group", session.name(), fails=None)
    contains(out, "GroupIdNotFound|not found|does not exist|could not be deleted")


@check("kafka-consumer-groups --reset-offsets")
def reset_offsets(session):
    topic, group, base = left_group(session)
    tool = Tool(session)
    moment = datetime.datetime.fromtimestamp((base + 6_500) / 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    for arguments, wanted in ((["--to-earliest"], 0), (["--to-offset", 4], 4), (["--shift-by", -2], 2), (["--to-datetime", moment], 7)):
        rows = tool.rows("--reset-offsets", "--group", group, "--topic", topic, *arguments, "--execute")
        equal(sorted((row["PARTITION"], row["NEW-OFFSET"]) for row in rows), [("0", str(wanted)), ("1", str(wanted))], f"new offsets for {arguments}")
        equal([session.committed(group, topic, partition) for partition in (0, 1)], [wanted, wanted], f"committed after {arguments}")
    tool("--reset-offsets", "--group", group, "--topic", f"{topic}:1", "--to-offset", 8, "--execute")
    member = session.member(group, [topic])
    session.until_read([member], {(topic, 0): session.written[topic, 0][7:], (topic, 1): session.written[topic, 1][8:]})


@check("kafka-consumer-groups --delete-offsets and --delete")
def delete(session):
    topic, group, _ = left_group(session)
    tool = Tool(session)
    contains(tool("--delete-offsets", "--group", group, "--topic", f"{topic}:0"), "Request succe")
    equal([session.committed(group, topic, partition) for partition in (0, 1)], [-1, 10], "committed after one was deleted")
    contains(tool("--delete", "--group", group), "was successful")
    equal(group in tool("--list").split(), False, "a deleted group is listed")
    equal(session.committed(group, topic, 1), -1, "committed of a deleted group")
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))


@check("kafka-consumer-groups --delete-offsets of a topic that a member reads is refused")
def delete_subscribed(session):
    tool, topic, group = Tool(session), session.topic(1), session.name()
    session.write(topic, 3)
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))
    member.commit()
    session.until_committed(group, {(topic, 0): 3})
    contains(tool("--delete-offsets", "--group", group, "--topic", topic, fails=None), "subscribed")
    equal(session.committed(group, topic, 0), 3, "committed")


@check("kafka-console-consumer --group")
def console(session):
    topic, group = session.topic(2), session.name()
    session.write(topic, 5)
    read = lambda count: sorted(run("kafka-console-consumer", "--bootstrap-server", session.pool.bootstrap, "--topic", topic, "--group", group,
                                    "--command-property", "auto.offset.reset=earliest", "--max-messages", count, "--timeout-ms", 30000).split())
    values = lambda first: sorted(value.decode() for records in session.since(topic, first).values() for _, value in records)
    equal(read(10), values(0), "lines")
    session.until_committed(group, {(topic, partition): 5 for partition in (0, 1)})
    session.write(topic, 2)
    equal(read(4), values(5), "lines of a second run")


def group_described(session, group):
    """What the tool says of a group of the new protocol with two members."""
    tool = Tool(session)
    contains(tool("--list", "--type"), rf"^{group}\s+Consumer\s*$")
    row = tool.rows("--describe", "--group", group, "--state")[0]
    equal((row["STATE"], row["#MEMBERS"]), ("Stable", "2"), "state")
    equal(sorted(row["#PARTITIONS"] for row in tool.rows("--describe", "--group", group, "--members")), ["2", "2"], "partitions of each member")
    equal({row["LAG"] for row in tool.rows("--describe", "--group", group)}, {"0"}, "lags")
    contains(tool("--describe", "--group", group, "--state", "--verbose"), r"uniform", r"GROUP-EPOCH")
