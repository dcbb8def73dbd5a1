"""The checks of groups and transactions, which run at the same time: each has topics, groups and processes of its own, and mostly waits."""
import concurrent.futures

from suite import connect, consumer_protocol, group_tools, groups, streams, transaction_tools, transactions
from suite.members import GroupSession
from suite.pool import Pool

AT_ONCE = 8


def steward_of(families):
    return next(family for family in families if family.name == "confluent-kafka")


def checks_of(section, families, clients, work):
    """(label, family, name, function of a session) of every check of a section, for the clients that were chosen."""
    chosen, steward = [family for family in families if family.name in clients], steward_of(families)
    if section == "groups":
        # By check, then by client: so that the same client's slow processes do not all start at once.
        return [("groups", family, name, function) for name, needs, function in groups.CHECKS for family in chosen if needs(family)]
    if section == "group-tools":
        return [("group-tools", steward, name, function) for name, _, function in group_tools.CHECKS]
    if section == "consumer-protocol":
        return [("consumer-protocol", family, name, function) for name, needs, function in consumer_protocol.CHECKS for family in chosen
                if family.new_protocol and needs(family)]
    if section == "transactions":
        found = [("transactions", family, name, function) for name, needs, function in transactions.PRODUCERS for family in chosen if family.transactional]
        found += [("transactions", family, name, function) for name, needs, function in transactions.READERS for family in chosen]
        return found + [("transactions", steward, name, function) for name, needs, function in transactions.STEWARD if steward in chosen]
    if section == "transaction-tools":
        return [("transaction-tools", steward, name, function) for name, _, function in transaction_tools.CHECKS]
    if section == "connect":
        return [("connect", steward, "a file, a topic, a file, by a distributed worker that is killed on the way",
                 lambda session: connect.pipeline(session, work / "connect" / "libs"))]
    return [("streams", steward, "word count with exactly_once_v2, killed on the way", lambda session: streams.word_count(session, work / "streams"))]


SECTIONS = ("groups", "group-tools", "consumer-protocol", "transactions", "transaction-tools", "streams", "connect")
# Programs of one client only, which is not named with each check.
BESIDE = ("streams", "connect")
# What takes longest begins first.
ORDER = ("connect", "streams", "consumer-protocol", "group-tools", "groups", "transaction-tools", "transactions")


def run(report, sections, families, clients, only_checks, bootstrap, directory, command_of, environment, run_id, work):
    pool = Pool(bootstrap, directory, command_of, environment)

    def judge(number, label, family, name, function):
        def judged():
            session, passed = GroupSession(family, pool, steward_of(families), run_id, number), False
            try:
                function(session)
                passed = True
            finally:
                session.end(passed)
        shown = name if label.endswith("tools") or label in BESIDE else f"{family.name}: {name}"
        report.check(label, shown, judged)

    try:
        jobs = [job for section in ORDER if section in sections for job in checks_of(section, families, clients, work)
                if not only_checks or any(part in job[2] for part in only_checks)]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as executor:
            list(executor.map(lambda numbered: judge(numbered[0], *numbered[1]), enumerate(jobs)))
    finally:
        pool.stop()
