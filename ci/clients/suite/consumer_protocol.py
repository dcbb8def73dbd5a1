"""Groups whose coordinator assigns (KIP-848), by the clients that speak it: a member that comes or goes takes from the others only what it gets.

How long a member may be silent is the broker's to say: `run` sets it, and a broker that was started elsewhere needs the same (`run --settings`)."""
from suite import groups
from suite.checks import equal
from suite.driver import KafkaError
from suite.gathering import gather
from suite.group_tools import Tool, group_described
from suite.tools import contains

PROTOCOL = "consumer"
UNRELEASED_INSTANCE_ID = 111
GROUP_ID_NOT_FOUND = 69
# Long enough for a JVM that starts beside others.
SESSION_SECONDS = 10
SETTINGS = (f"group.consumer.min.session.timeout.ms={SESSION_SECONDS * 1000}", f"group.consumer.session.timeout.ms={SESSION_SECONDS * 1000}",
            "group.consumer.min.heartbeat.interval.ms=500", "group.consumer.heartbeat.interval.ms=500")
CHECKS = []
check = gather(CHECKS)


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


class Changing:
    """KIP-848's online migration: a group goes over to the other protocol one member after the other while records are written."""

    def __init__(self, session, assignor, protocol):
        self.session, self.assignor, self.protocol = session, assignor, protocol
        self.topic, self.group, self.tool, self.everybody = session.topic(6), session.name(), Tool(session), []
        self.members = [self.member(protocol) for _ in range(3)]
        session.write(self.topic, 5)
        session.until_share([self.topic], self.members)
        self.read_and_commit()

    def member(self, protocol):
        self.everybody.append(self.session.member(self.group, [self.topic], protocol=protocol, assignor=self.assignor))
        return self.everybody[-1]

    def read_and_commit(self):
        """Everything that was written is read by somebody. Twice is allowed: who is told late that its generation is over could not commit."""
        written = self.session.written

        def all_read():
            return all({one for member in self.everybody for one in member.records.get(where, [])} == set(values) for where, values in written.items())

        def committed():
            """A partition may just have gone over to a member that has not read it yet, and who is told to join again cannot commit."""
            try:
                for member in self.members:
                    member.driver.call("commit", how="sync", offsets=None)
            except KafkaError:
                return False
            return all(self.session.committed(self.group, *where) == len(values) for where, values in written.items())
        self.session.until("everything is read and committed", lambda: all_read() and committed(), self.members)

    def to(self, protocol):
        contains(self.tool("--list", "--type", self.protocol), self.group)
        for at in range(3):
            self.members[at].leave()
            self.session.write(self.topic, 4)
            self.members[at] = self.member(protocol)
            self.session.write(self.topic, 4)
            self.session.until_share([self.topic], self.members)
            self.read_and_commit()
        contains(self.tool("--list", "--type", protocol), self.group)
        self.protocol = protocol


def change_protocol(session, assignor):
    group = Changing(session, assignor, "classic")
    group.to("consumer")
    group.to("classic")


@check("a group of range goes over to it member by member, and back")
def change_range(session):
    change_protocol(session, "range")


@check("a group of cooperative-sticky goes over to it member by member, and back", lambda family: "cooperative-sticky" in family.plain_assignors)
def change_cooperative(session):
    change_protocol(session, "cooperative-sticky")


@check("a group of cooperative-sticky goes over from it member by member, and stays", lambda family: "cooperative-sticky" not in family.plain_assignors)
def leave_cooperative(session):
    """The leader tells members more than their partitions, which would be lost: Kafka and Ringlog then refuse who comes with the new protocol."""
    group = Changing(session, "cooperative-sticky", "consumer")
    group.to("classic")
    assigned = [member.assigned for member in group.members]
    refused = session.member(group.group, [group.topic], protocol=PROTOCOL)
    session.until("a consumer is told that there is no consumer group (69)",
                  lambda: any(code == GROUP_ID_NOT_FOUND for code, _ in refused.errors), [*group.members, refused])
    refused.kill()
    session.write(group.topic, 4)
    group.read_and_commit()
    equal([member.assigned for member in group.members], assigned, "partitions of the others")
    contains(group.tool("--list", "--type", "classic"), group.group)
