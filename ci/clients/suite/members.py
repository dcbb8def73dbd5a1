"""Members of a group, one process each, and the session of a check that uses them: what was written, who read it, who owns what."""
import signal
import time

from suite.checks import eventually
from suite.driver import decode
from suite.records import record

SESSION_TIMEOUT_MS = 6000
PATIENCE_SECONDS = 40  # longer than any client takes to notice a dead member and to rejoin


class Member:
    """A member that was told to join; `look` brings what happened since."""

    def __init__(self, driver, family, group, topics, **options):
        self.driver, self.family, self.group, self.topics = driver, family, group, topics
        self.options = {"assignor": family.assignors[0], "instance": None, "session_timeout_ms": SESSION_TIMEOUT_MS, "reset": "earliest",
                        "commits": "sync" if "sync" in family.commits else "auto", "isolation": "read_uncommitted", "protocol": "classic", **options}
        self.assigned, self.assignments, self.revoked, self.records, self.errors, self.here = set(), 0, set(), {}, [], True
        driver.call("join", group=group, topics=topics, **self.options)

    def look(self):
        state = self.driver.call("state")
        self.assigned, self.assignments = {tuple(one) for one in state["assigned"]}, state["assignments"]
        self.revoked = {tuple(one) for one in state["revoked"]}
        for topic, partition, offset, value in state["records"]:
            self.records.setdefault((topic, partition), []).append((offset, decode(value)))
        self.errors += state["errors"]
        return self

    def count(self):
        return sum(map(len, self.records.values()))

    def forget(self):
        self.look().records.clear()

    def commit(self, how="sync"):
        """What this member has read of what it owns now; where the client commits by itself, that is left to it."""
        self.look()
        offsets = [[*where, self.records[where][-1][0] + 1] for where in sorted(self.assigned) if self.records.get(where)]
        if self.options["commits"] != "auto" and offsets:
            self.driver.call("commit", how=how, offsets=offsets)

    def leave(self):
        if self.here:
            self.here = False
            self.driver.call("leave")

    def kill(self):
        self.here = False
        self.driver.kill()

    def suspend(self):
        self.driver.signal(signal.SIGSTOP)

    def wake(self):
        self.driver.signal(signal.SIGCONT)


class GroupSession:
    """One check's topics, members and clients; `steward` is another client that prepares topics and knows what groups committed."""

    def __init__(self, family, pool, steward_family, run_id, number):
        self.family, self.pool = family, pool
        self.prefix, self.number = f"{family.name}-{run_id}-g{number}", 0
        self.steward = pool.take("steward", steward_family.command)
        self.members, self.written, self.lent = [], {}, []

    def end(self, passed):
        """Members that are well leave and may be used again; after a failure nothing of it is."""
        for member in self.members:
            try:
                if not passed:
                    member.driver.kill()
                else:
                    member.leave()
            except Exception:  # the check has ended; its driver is not used again
                member.driver.kill()
            self.pool.give(member.driver)
        for driver in self.lent:
            self.pool.give(driver)
        self.pool.give(self.steward)

    def name(self):
        self.number += 1
        return f"{self.prefix}-{self.number}"

    def topic(self, partitions=1):
        name = self.name()
        self.steward.call("create_topic", topic=name, partitions=partitions, configs={})
        for partition in range(partitions):
            eventually(lambda: self.steward.call("watermarks", topic=name, partition=partition))
            self.written[name, partition] = []
        return name

    def driver(self):
        driver = self.pool.take(self.family.name, self.family.command)
        self.lent.append(driver)
        return driver

    def member(self, group, topics, **options):
        driver = self.pool.take(f"{self.family.name}-member", self.family.member or self.family.command)
        self.members.append(Member(driver, self.family, group, topics, **options))
        return self.members[-1]

    def write(self, topic, count, partitions=None, ts=None):
        """Writes `count` more records to each partition, the values numbered as the offsets are."""
        for where, values in self.written.items():
            if where[0] == topic and (partitions is None or where[1] in partitions):
                first = len(values)
                values += [(offset, b"%s/%d/%d" % (topic.encode(), where[1], offset)) for offset in range(first, first + count)]
                records = [record(None, value, ts=None if ts is None else ts + 1000 * offset) for offset, value in values[first:]]
                # A partition that was just added is unknown to the client for a moment; it then sends nothing.
                eventually(lambda: self.steward.call("produce", topic=topic, partition=where[1], records=records, compression="none", idempotent=False, acks=-1,
                                                     each=False))

    def committed(self, group, topic, partition):
        return self.steward.call("committed", group=group, topic=topic, partition=partition)

    def until(self, what, holds, members=(), seconds=PATIENCE_SECONDS):
        """Looks at the members until `holds()`; what it raises or answers with a false value last is the failure."""
        deadline = time.monotonic() + seconds
        while True:
            for member in members:
                member.look()
            if holds():
                return
            if time.monotonic() > deadline:
                state = "; ".join(f"{sorted(member.assigned)} assigned, {member.count()} read, errors {member.errors[:3]}" for member in members)
                raise AssertionError(f"{what}: not within {seconds} s; members have: {state}")
            time.sleep(0.1)

    def until_committed(self, group, offsets):
        for (topic, partition), offset in offsets.items():
            def there():
                found = self.committed(group, topic, partition)
                if found != offset:
                    raise AssertionError(f"committed for {topic}-{partition} is {found}, expected {offset}")
            eventually(there)

    def until_share(self, topics, members):
        """All partitions of the topics are owned, each by one of the members, and each member owns some."""
        wanted = sorted(where for where in self.written if where[0] in topics)

        def shared():
            return all(member.assigned for member in members) and sorted(where for member in members for where in member.assigned) == wanted
        self.until(f"{len(members)} members share {len(wanted)} partitions", shared, members)

    def until_read(self, members, wanted):
        """The members together read exactly `wanted`, {(topic, partition): [(offset, value)]}: nothing twice, nothing else, in order."""
        total = sum(map(len, wanted.values()))
        self.until(f"{total} records are read", lambda: sum(member.count() for member in members) >= total, members)
        time.sleep(0.3)  # what comes too much comes at once
        for member in members:
            member.look()
        for where in sorted(set(wanted) | {where for member in members for where in member.records}):
            parts = [member.records[where] for member in members if member.records.get(where)]
            for part in parts:
                if part != sorted(part):
                    raise AssertionError(f"{where} came out of order: {part}")
            got, want = sorted(one for part in parts for one in part), wanted.get(where, [])
            if got != want:
                raise AssertionError(f"of {where} was read {got}, expected {want}")

    def since(self, topic, first):
        """What was written to each partition of a topic from an offset on."""
        return {where: values[first:] for where, values in self.written.items() if where[0] == topic and values[first:]}
