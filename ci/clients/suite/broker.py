"""A broker of our own, Ringlog or Kafka: started as the README says, on a port the system chose, stopped by its pid."""
import os
import pathlib
import select
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent


class CannotStart(Exception):
    """The broker could not be started; the text says what it printed."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ringlog:
    def __init__(self, program, directory, overrides=()):
        self.program, self.directory, self.overrides = program, pathlib.Path(directory), tuple(overrides)
        self.port, self.http_port, self.process = free_port(), free_port(), None

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def data(self):
        return self.directory / "data"

    def launch(self):
        """Starts the process and waits for nothing."""
        if not os.access(self.program, os.X_OK):
            raise CannotStart(f"{self.program} is not there: run `cargo build --release` first")
        command = [self.program, "start"]
        for override in (f"listeners=PLAINTEXT://{self.bootstrap}", f"http.listener=127.0.0.1:{self.http_port}", f"log.dirs={self.data}", "shards=2", *self.overrides):
            command += ["--override", override]
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "broker.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)

    def start(self, seconds=30):
        """Starts the process and waits for its `ready` line."""
        self.launch()
        deadline, printed = time.monotonic() + seconds, b""
        while not any(line.startswith(b"ready") for line in printed.splitlines()):
            if select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                data = os.read(self.process.stdout.fileno(), 4096)
                printed += data
                if data:
                    continue
            self.kill()
            raise CannotStart(f"no line beginning with `ready` within {seconds} s: {printed.decode(errors='replace')} {self.log_tail()}")

    def stop(self, seconds=30):
        """SIGTERM; answers the exit status, which is 0 when the shutdown was clean."""
        if not self.process:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            self.ended()

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.ended()

    def ended(self):
        if self.process:
            self.process.stdout.close()
            self.process = None

    def log_tail(self):
        return (self.directory / "broker.log").read_text(errors="replace")[-2000:]


class Kafka:
    """Apache Kafka under the same treatment, to show that the judge is fair: kill -9 leaves it its page cache."""

    def __init__(self, directory):
        self.directory, self.port, self.controller_port = directory / "kafka", free_port(), free_port()
        self.bootstrap, self.process = f"127.0.0.1:{self.port}", None

    def start(self, seconds=60):
        subprocess.run([ROOT / "ci/kafka/start", "--port", str(self.port), "--controller-port", str(self.controller_port), "--dir", self.directory],
                       check=True, stdout=subprocess.DEVNULL, timeout=seconds)

    def launch(self):
        """Kafka's own start waits until it answers, so it is not killed while it recovers."""
        self.start()

    def kill(self):
        pid = (self.directory / "kafka.pid").read_text().strip()
        subprocess.run(["kill", "-9", pid], check=True)
        while pathlib.Path(f"/proc/{pid}").exists():
            time.sleep(0.02)

    def stop(self):
        return subprocess.run([ROOT / "ci/kafka/stop", "--dir", self.directory]).returncode
