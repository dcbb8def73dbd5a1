"""The loop of a group member: it polls its client, and between two polls does what the suite asks, so one thread owns the client.

Each client's member hands `serve_member` a class of its own: `Consumer(options, state)` joins; `poll()` waits up to 50 ms and notes
what came in `state`; `assigned()`, `commit`, `committed`, `pause`, `resume`, `seek` and `close` are what the README says of them."""
import json
import os
import queue
import sys
import threading
import time
import traceback

from protocol import ClientError, encode

POLL_SECONDS = 0.05
HEARTBEAT_MS = 500
AUTO_COMMIT_MS = 200
METADATA_MAX_AGE_MS = 2000


class State:
    """What happened to the member since it joined; records and errors since they were last asked for."""

    def __init__(self):
        self.lock, self.assignments, self.revoked, self.records, self.errors = threading.Lock(), 0, [], [], []

    def assigned(self, _partitions=()):
        with self.lock:
            self.assignments += 1

    def revoke(self, partitions):
        with self.lock:
            self.revoked += [[partition.topic, partition.partition] for partition in partitions]

    def take(self, topic, partition, offset, value):
        with self.lock:
            self.records.append([topic, partition, offset, encode(value)])

    def fail(self, code, message):
        with self.lock:
            self.errors.append([code, message])

    def answer(self, assigned):
        with self.lock:
            answer = {"assigned": sorted(map(list, assigned)), "assignments": self.assignments, "revoked": list(self.revoked),
                      "records": self.records, "errors": self.errors}
            self.records, self.errors = [], []
            return answer


class Asked:
    """The operations; `consumer` is there between `join` and `leave`."""

    def __init__(self, make, version):
        self.make, self.state, self.consumer, self.version = make, State(), None, version

    def join(self, **options):
        self.state = State()
        self.consumer = self.make(options, self.state)

    def state_now(self):
        return self.state.answer(self.consumer.assigned())

    def leave(self):
        consumer, self.consumer = self.consumer, None
        consumer.close()

    def poll(self):
        try:
            self.consumer.poll()
        except Exception as error:  # reported with the state: the loop must live on, as an application's would
            traceback.print_exc()
            self.state.fail(getattr(error, "code", None) if isinstance(error, ClientError) else None, f"{type(error).__name__}: {error}")
            time.sleep(0.1)

    def run(self, op, arguments):
        if op in ("join", "leave"):
            return getattr(self, op)(**arguments)
        if op == "state":
            return self.state_now()
        if op == "version":
            return self.version()
        return getattr(self.consumer, op)(**arguments)


def read_requests(requests):
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # a member whose suite is gone leaves nothing behind, and says good-bye to nobody


def serve_member(make, version):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests, asked = queue.Queue(), Asked(make, version)
    threading.Thread(target=read_requests, args=(requests,), daemon=True).start()
    while True:
        try:
            request = requests.get(block=asked.consumer is None)
        except queue.Empty:
            asked.poll()
            continue
        op = request.pop("op")
        try:
            answer = {"ok": asked.run(op, request)}
        except ClientError as error:
            answer = {"error": error.code, "message": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": None, "message": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
