"""Group member of kcat: `kcat -G`, its records from its output, its partitions from what it says of each rebalance."""
import re
import signal
import subprocess
import threading
import time

from kcat import Driver
from member import AUTO_COMMIT_MS, HEARTBEAT_MS, METADATA_MAX_AGE_MS, POLL_SECONDS, serve_member
from protocol import BOOTSTRAP


class Member:
    def __init__(self, options, state):
        self.state, self.lock, self.partitions = state, threading.Lock(), set()
        settings = {"auto.offset.reset": options["reset"], "auto.commit.interval.ms": AUTO_COMMIT_MS, "heartbeat.interval.ms": HEARTBEAT_MS,
                    "session.timeout.ms": options["session_timeout_ms"], "partition.assignment.strategy": options["assignor"],
                    "topic.metadata.refresh.interval.ms": METADATA_MAX_AGE_MS, "isolation.level": options["isolation"]}
        if options["instance"]:
            settings["group.instance.id"] = options["instance"]
        command = ["kcat", "-b", BOOTSTRAP, "-u", "-f", "%t %p %o %S\n%s\n"]
        for key, value in settings.items():
            command += ["-X", f"{key}={value}"]
        self.process = subprocess.Popen([*command, "-G", options["group"], *options["topics"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.threads = [threading.Thread(target=read, daemon=True) for read in (self.read_records, self.read_rebalances)]
        for thread in self.threads:
            thread.start()

    def read_records(self):
        while line := self.process.stdout.readline():
            topic, partition, offset, size = line.split()
            value = self.process.stdout.read(int(size) + 1)[:-1]
            self.state.take(topic.decode(), int(partition), int(offset), value)

    def read_rebalances(self):
        for line in self.process.stderr:
            text = line.decode(errors="replace")
            print(text, end="", flush=True)
            found = re.match(r"% Group .* rebalanced .*?(assigned|revoked): (.*)", text)
            with self.lock:
                if found and found[1] == "assigned":
                    self.partitions = {(topic, int(partition)) for topic, partition in re.findall(r"(\S+) \[(\d+)\]", found[2])}
                    self.state.assigned()
                elif found:
                    self.partitions = set()
                elif "fenced" in text.lower():
                    self.state.fail(82, text.strip())
                elif text.startswith("% ERROR"):
                    self.state.fail(None, text.strip())

    def poll(self):
        if self.process.poll() is not None:
            self.partitions = set()
            raise ChildProcessError(f"kcat ended with status {self.process.returncode}")
        time.sleep(POLL_SECONDS)

    def assigned(self):
        with self.lock:
            return set(self.partitions)

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()
            for thread in self.threads:
                thread.join()


if __name__ == "__main__":
    serve_member(Member, Driver().version)
