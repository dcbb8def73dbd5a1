"""Groups whose coordinator assigns (KIP-848), by the clients that speak it: a member that comes or goes takes from the others only what it gets.

How long a member may be silent is the broker's to say: `run` sets it, and a broker that was started elsewhere needs the same (`run --settings`)."""
from suite import groups
from suite.checks import equal
from suite.driver import KafkaError
from suite.group_tools import Tool, group_described
from suite.tools import contains

PROTOCOL = "consumer"
UNRELEASED_INSTANCE_ID = 111
# Long enough for a JVM that starts beside others.
SESSION_SECONDS = 10
SETTINGS = (f"group.consumer.min.session.timeout.ms={SESSION_SECONDS * 1000}", f"group.consumer.session.timeout.ms={SESSION_SECONDS * 1000}",
            "group.consumer.min.heartbeat.interval.ms=500", "group.consumer.heartbeat.interval.ms=500")
CHECKS = []


def check(name):
    def add(function):
        CHECKS.append((name, function))
        return function
    return add


@check("a member joins and leaves, and the tools describe it")
def share(session):
    topic, group = session.topic(4), session.name()
    session.write(topic, 5)
    first = session.member(group, [topic], protocol=PROTOCOL)
    session.until_read([first], session.since(topic, 0))
    first.commit()
    session.until_committed(group, {(topic, partition): 5 for partition in range(4)})
    second = session.member(group, [topic], protocol=PROTOCOL)
    session.until_share([topic], [first, second])
    equal(len(first.assigned), 2, "partitions of the first member")
    equal(first.revoked, second.assigned, "partitions taken from the first member")
    first.forget()
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 5))
    for member in (first, second):
        member.commit()
    session.until_committed(group, {(topic, partition): 10 for partition in range(4)})
    group_described(session, group)
    second.leave()
    session.until_share([topic], [first])
    first.forget()
    session.write(topic, 5)
    session.until_read([first], session.since(topic, 10))


@check("a killed member is replaced")
def killed(session):
    groups.killed(session, PROTOCOL)


@check("a member that was suspended past its session is replaced, and comes back")
def suspended(session):
    groups.suspended(session, PROTOCOL)


@check("a paused partition waits, its member stays")
def paused(session):
    groups.paused(session, PROTOCOL, SESSION_SECONDS)


@check("a static member restarts without a rebalance, a second of its name is refused, and a killed one is replaced")
def static(session):
    """Unlike in a classic group, the one that is there stays: its name is free only when it has left, or its session is over."""
    topic, group = session.topic(4), session.name()
    everything = {(topic, partition) for partition in range(4)}
    first = session.member(group, [topic], instance="one", protocol=PROTOCOL)
    session.until_share([topic], [first])
    second = session.member(group, [topic], instance="two", protocol=PROTOCOL)
    session.until_share([topic], [first, second])
    session.write(topic, 5)
    session.until_read([first, second], session.since(topic, 0))
    for member in (first, second):
        member.commit()
    session.until_committed(group, {(topic, partition): 5 for partition in range(4)})
    owned, revoked, assignments = set(second.assigned), set(first.revoked), first.assignments
    second.leave()
    session.write(topic, 5)
    again = session.member(group, [topic], instance="two", protocol=PROTOCOL)
    session.until("the restarted member gets what it had", lambda: again.assigned == owned, [first, again])
    first.forget()
    session.until("the restarted member reads on where it was",
                  lambda: again.records == {where: session.written[where][5:] for where in owned}, [again])
    equal((first.look().assignments, first.revoked, first.assigned), (assignments, revoked, everything - owned), "what happened to the other member")
    usurper = session.member(group, [topic], instance="two", protocol=PROTOCOL)
    session.until("the second of its name is told that it is not free (111)",
                  lambda: any(code == UNRELEASED_INSTANCE_ID for code, _ in usurper.errors), [first, again, usurper])
    equal((usurper.assigned, again.assigned, again.errors), (set(), owned, []), "partitions of the second of its name, of the first, and its errors")
    usurper.kill()
    again.commit()
    again.kill()
    session.until_share([topic], [first])


def change_protocol(session, assignor):
    """KIP-848's online migration: a group goes over to the other protocol one member after the other while records are written, and back again."""
    topic, group = session.topic(6), session.name()
    tool, everybody = Tool(session), []

    def member(protocol):
        everybody.append(session.member(group, [topic], protocol=protocol, assignor=assignor))
        return everybody[-1]

    def read_and_commit(members):
        """Everything that was written is read by somebody. Twice is allowed: who is told late that its generation is over could not commit."""
        def all_read():
            return all({one for member in everybody for one in member.records.get(where, [])} == set(values) for where, values in session.written.items())

        def committed():
            """A partition may just have gone over to a member that has not read it yet, and who is told to join again cannot commit."""
            try:
                for one in members:
                    one.driver.call("commit", how="sync", offsets=None)
            except KafkaError:
                return False
            return all(session.committed(group, *where) == len(values) for where, values in session.written.items())
        session.until("everything is read and committed", lambda: all_read() and committed(), members)

    members = [member("classic") for _ in range(3)]
    session.write(topic, 5)
    session.until_share([topic], members)
    read_and_commit(members)
    for protocol, others in (("consumer", "classic"), ("classic", "consumer")):
        contains(tool("--list", "--type", others), group)
        for at in range(3):
            members[at].leave()
            session.write(topic, 4)
            members[at] = member(protocol)
            session.write(topic, 4)
            session.until_share([topic], members)
            read_and_commit(members)
    contains(tool("--list", "--type", "classic"), group)


@check("a group of range goes over to it member by member, and back")
def change_range(session):
    change_protocol(session, "range")


@check("a group of cooperative-sticky goes over to it member by member, and back")
def change_cooperative(session):
    change_protocol(session, "cooperative-sticky")
