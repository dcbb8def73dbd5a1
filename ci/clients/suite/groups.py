"""What every client is asked as a member of consumer groups, and what its group must then do. Each check has topics and groups of its own."""
import time

from suite.checks import equal, refused
from suite.gathering import gather
from suite.members import SESSION_TIMEOUT_MS

CHECKS = []
check = gather(CHECKS)


@check("a group reads everything once, in order")
def reads_all(session):
    topics, group = [session.topic(3), session.topic(1)], session.name()
    for topic in topics:
        session.write(topic, 20)
    member = session.member(group, topics)
    session.until_read([member], {**session.since(topics[0], 0), **session.since(topics[1], 0)})
    session.write(topics[1], 5)
    session.until_read([member], {**session.since(topics[0], 0), **session.since(topics[1], 0)})


@check("a group that begins at the end")
def begins_at_the_end(session):
    topic, group = session.topic(2), session.name()
    session.write(topic, 5)
    member = session.member(group, [topic], reset="latest")
    session.until_share([topic], [member])
    time.sleep(1.5)  # the client now asks where the end is; what is written before it knows is rightly not read
    session.write(topic, 3)
    session.until_read([member], session.since(topic, 5))


def resumes(session, commits):
    topic, group = session.topic(3), session.name()
    session.write(topic, 10)
    first = session.member(group, [topic], commits=commits)
    session.until_read([first], session.since(topic, 0))
    if commits != "auto":
        first.driver.call("commit", how=commits, offsets=None)
    session.until_committed(group, {(topic, partition): 10 for partition in range(3)})
    session.write(topic, 5)
    session.until_read([first], session.since(topic, 0))
    if commits == "auto":
        session.until_committed(group, {(topic, partition): 15 for partition in range(3)})
    first.leave()
    second = session.member(group, [topic], commits=commits)
    session.write(topic, 2)
    session.until_read([second], session.since(topic, 15 if commits == "auto" else 10))


for mode in ("auto", "sync", "async"):
    check(f"commits {mode}, and resumes there after a restart", lambda family, mode=mode: mode in family.commits)(
        lambda session, mode=mode: resumes(session, mode))


@check("commits a named offset, and is told it", lambda family: family.names_offsets)
def named_offset(session):
    topic, group = session.topic(2), session.name()
    session.write(topic, 10)
    first = session.member(group, [topic])
    session.until_read([first], session.since(topic, 0))
    equal(first.driver.call("committed", topic=topic, partition=1), -1, "committed before any commit")
    first.driver.call("commit", how="sync", offsets=[[topic, 0, 4], [topic, 1, 10]])
    for partition, offset in ((0, 4), (1, 10)):
        equal(first.driver.call("committed", topic=topic, partition=partition), offset, f"committed of partition {partition}")
    first.leave()
    second = session.member(group, [topic])
    session.until_read([second], {(topic, 0): session.written[topic, 0][4:]})


def share(session, assignor):
    """A second member joins and leaves again; nothing is read twice or not at all, for each commits before the other takes over."""
    topics, group = [session.topic(3), session.topic(3)], session.name()
    commits = "sync" if "sync" in session.family.commits else "auto"

    def write_and_read(members):
        for topic in topics:
            session.write(topic, 4)
        session.until_read(members, {**session.since(topics[0], 0), **session.since(topics[1], 0)})
        for member in members:
            if member.here:
                member.commit()
        session.until_committed(group, {(topic, partition): len(session.written[topic, partition]) for topic in topics for partition in range(3)})

    first = session.member(group, topics, assignor=assignor, commits=commits)
    write_and_read([first])
    session.until_share(topics, [first])
    second = session.member(group, topics, assignor=assignor, commits=commits)
    session.until_share(topics, [first, second])
    if assignor == "range":
        equal(sorted(len(member.assigned) for member in (first, second)), [2, 4], "partitions of each member")
    elif abs(len(first.assigned) - len(second.assigned)) > 2:
        raise AssertionError(f"{assignor} gave {len(first.assigned)} and {len(second.assigned)} of 6 partitions")
    if assignor == "cooperative-sticky":
        equal(first.revoked, second.assigned, "partitions taken from the first member")
    held = dict(first.records), dict(second.records)
    write_and_read([first, second])
    for member, before in zip((first, second), held):
        for where, records in member.records.items():
            if len(records) > len(before.get(where, [])) and where not in member.assigned:
                raise AssertionError(f"a member read {where}, which is not its own")
    second.leave()
    session.until_share(topics, [first])
    for topic in topics:
        session.write(topic, 4)
    session.until("the first member reads the rest", lambda: first.count() + second.count() >= 72, [first])
    for topic in topics:
        for partition in range(3):
            got = sorted(first.records.get((topic, partition), []) + second.records.get((topic, partition), []))
            equal(got, session.written[topic, partition], f"records of {topic}-{partition}")


for assignor in ("range", "roundrobin", "sticky", "cooperative-sticky"):
    check(f"a member joins and leaves, {assignor}", lambda family, assignor=assignor: assignor in family.assignors)(
        lambda session, assignor=assignor: share(session, assignor))


@check("a killed member is replaced")
def killed(session, protocol="classic"):
    topic, group = session.topic(4), session.name()
    first, second = session.member(group, [topic], protocol=protocol), session.member(group, [topic], protocol=protocol)
    session.until_share([topic], [first, second])
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 0))
    for member in (first, second):
        member.commit()
    session.until_committed(group, {(topic, partition): 5 for partition in range(4)})
    orphaned = {partition for _, partition in second.assigned}
    second.kill()
    first.forget()
    session.write(topic, 5, partitions=orphaned)
    session.until_share([topic], [first])
    session.until_read([first], session.since(topic, 5))


@check("a member that was suspended past its session is replaced, and comes back")
def suspended(session, protocol="classic"):
    topic, group = session.topic(4), session.name()
    first, second = session.member(group, [topic], protocol=protocol), session.member(group, [topic], protocol=protocol)
    session.until_share([topic], [first, second])
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 0))
    for member in (first, second):
        member.commit()
    session.until_committed(group, {(topic, partition): 5 for partition in range(4)})
    second.suspend()
    try:
        session.until_share([topic], [first])
        first.forget()
        session.write(topic, 5)
        session.until_read([first], session.since(topic, 5))
        first.commit()
        session.until_committed(group, {(topic, partition): 10 for partition in range(4)})
    finally:
        second.wake()
    session.until_share([topic], [first, second])
    for partition in range(4):
        equal(session.committed(group, topic, partition), 10, f"committed of partition {partition} after the other came back")
    first.forget()
    second.forget()
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 10))


@check("a paused partition waits, its member stays", lambda family: family.pauses)
def paused(session, protocol="classic", session_seconds=SESSION_TIMEOUT_MS / 1000):
    topic, group = session.topic(2), session.name()
    member = session.member(group, [topic], protocol=protocol)
    session.write(topic, 3)
    session.until_read([member], session.since(topic, 0))
    assignments = member.assignments
    member.driver.call("pause", topic=topic, partition=0)
    time.sleep(0.7)  # a fetch may be under way
    session.write(topic, 3)
    session.until_read([member], {(topic, 0): session.written[topic, 0][:3], (topic, 1): session.written[topic, 1]})
    time.sleep(session_seconds + 1)  # longer than a session may be silent
    session.until_read([member], {(topic, 0): session.written[topic, 0][:3], (topic, 1): session.written[topic, 1]})
    member.driver.call("resume", topic=topic, partition=0)
    session.until_read([member], session.since(topic, 0))
    equal((member.assigned, member.assignments), ({(topic, 0), (topic, 1)}, assignments), "partitions, and how often it was given some")


@check("a static member restarts without a rebalance, and a second of its name fences it", lambda family: family.static)
def static(session):
    topic, group = session.topic(4), session.name()
    first = session.member(group, [topic], instance="one", session_timeout_ms=20000)
    session.until_share([topic], [first])
    second = session.member(group, [topic], instance="two", session_timeout_ms=20000)
    session.until_share([topic], [first, second])
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 0))
    for member in (first, second):
        member.commit()
    session.until_committed(group, {(topic, partition): 5 for partition in range(4)})
    owned, assignments = set(second.assigned), first.assignments
    second.kill()
    session.write(topic, 5)
    again = session.member(group, [topic], instance="two", session_timeout_ms=20000)
    session.until("the restarted member gets what it had", lambda: again.assigned == owned, [first, again])
    first.forget()
    session.until("the restarted member reads on where it was",
                  lambda: again.records == {where: session.written[where][5:] for where in owned}, [again])
    equal((first.look().assignments, first.assigned), (assignments, set(session.since(topic, 0)) - owned), "rebalances and partitions of the other member")
    again.commit()
    usurper = session.member(group, [topic], instance="two", session_timeout_ms=20000)
    session.until("the second of its name gets what it had", lambda: usurper.assigned == owned, [first, usurper])
    if session.family.fenced == "told":
        session.until("the member whose name was taken is told that it is fenced (82)", lambda: any(code == 82 for code, _ in again.errors), [again])
    elif session.family.fenced == "commit":
        refused(82, "a commit of the member whose name was taken", lambda: again.driver.call("commit", how="sync", offsets=[[*sorted(owned)[0], 1]]))
    again.kill()


@check("seeks by offset, time, to beginning and end", lambda family: family.seeks)
def seeks(session):
    topic, group, base = session.topic(1), session.name(), int(time.time() * 1000) - 3_600_000
    session.write(topic, 20, ts=base)
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))
    for kind, to, first in (("offset", 5, 5), ("time", {"ts": base + 11_500}, 12), ("earliest", "earliest", 0), ("offset", 19, 19), ("latest", "latest", 20)):
        if kind in session.family.seeks:
            member.forget()
            member.driver.call("seek", topic=topic, partition=0, to=to)
            if first == 20:
                time.sleep(1.5)  # the client now asks where the end is
                session.write(topic, 2)
            session.until_read([member], {(topic, 0): session.written[topic, 0][first:]})


@check("partitions that a topic gets later are read")
def new_partitions(session):
    topic, group = session.topic(1), session.name()
    session.write(topic, 3)
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))
    member.commit()
    session.steward.call("create_partitions", topic=topic, total=3)
    session.written.update({(topic, 1): [], (topic, 2): []})
    session.until_share([topic], [member])
    session.write(topic, 4, partitions=(1, 2))
    session.until_read([member], session.since(topic, 0))


@check("two groups do not see each other")
def two_groups(session):
    topic, groups = session.topic(2), [session.name(), session.name()]
    session.write(topic, 6)
    members = [session.member(group, [topic]) for group in groups]
    for member in members:
        session.until_read([member], session.since(topic, 0))
    members[0].commit()
    session.until_committed(groups[0], {(topic, partition): 6 for partition in range(2)})
    if members[1].options["commits"] != "auto":
        equal(session.committed(groups[1], topic, 0), -1, "committed of the other group")


@check("a member whose assignor nobody else has is refused", lambda family: family.name in ("confluent-kafka", "java", "franz-go", "kafka-python"))
def inconsistent(session):
    topic, group = session.topic(2), session.name()
    first = session.member(group, [topic], assignor="range")
    session.until_share([topic], [first])
    second = session.member(group, [topic], assignor="roundrobin")
    session.until("it is told INCONSISTENT_GROUP_PROTOCOL (23)", lambda: any(code == 23 for code, _ in second.errors), [first, second])
    equal(first.look().assigned, {(topic, 0), (topic, 1)}, "partitions of the member that was there")
    second.kill()


def commit_of_strangers(session):
    """Commits that no member of the group may make."""
    topic, group = session.topic(1), session.name()
    session.write(topic, 3)
    member = session.member(group, [topic])
    session.until_read([member], session.since(topic, 0))
    refused(25, "a commit from outside while the group has members",
            lambda: session.steward.call("commit_outside", group=group, topic=topic, partition=0, offset=1))
    equal(session.committed(group, topic, 0), -1, "committed")
    member.leave()
    session.steward.call("commit_outside", group=group, topic=topic, partition=0, offset=1)
    equal(session.committed(group, topic, 0), 1, "committed by a client that only assigns, when the group is empty")


check("commits from outside a group are refused while it has members", lambda family: family.name == "confluent-kafka")(commit_of_strangers)
