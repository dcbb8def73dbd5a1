"""Groups whose coordinator assigns (KIP-848), by the clients that speak it: a member that comes or goes takes from the others only what it gets.

How long a member may be silent is the broker's to say: `run` sets it, and a broker that was started elsewhere needs the same (`run --settings`)."""
from suite import groups
from suite.checks import equal
from suite.group_tools import group_described

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
