"""One running driver process: sends operations, waits for answers with a limit, and turns errors into exceptions."""
import base64
import json
import os
import selectors
import signal
import subprocess
import time


class KafkaError(Exception):
    """The client reported an error; `code` is Kafka's, or None where the client gave none."""

    def __init__(self, code, message):
        super().__init__(f"error {code}: {message}")
        self.code = code


class DriverLost(Exception):
    """The driver ended or did not answer in time; the check it was asked for has failed."""


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def decode(text):
    return None if text is None else base64.b64decode(text)


class Driver:
    def __init__(self, name, command, bootstrap, log_path, environment=()):
        self.name, self.command, self.bootstrap, self.log_path = name, command, bootstrap, log_path
        self.environment = dict(environment)
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            env=dict(os.environ, BOOTSTRAP=self.bootstrap, **self.environment), bufsize=0,
                                            start_new_session=True)
        self.buffer = b""

    def stop(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.process = None

    def kill(self):
        """Ends the driver and what it started without a word to the broker, as kill -9 does."""
        if self.process:
            self.signal(signal.SIGKILL)
            self.stop()

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def call(self, op, timeout=60, **arguments):
        """A driver that was lost before is started again, so one failure does not take the checks after it along."""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            answer = json.loads(self.line(time.monotonic() + timeout))
        except (BrokenPipeError, DriverLost) as error:
            self.kill()
            raise DriverLost(f"{op}: {error}; the end of its log: {self.log_tail()}") from None
        if "ok" in answer:
            return answer["ok"]
        raise KafkaError(answer["error"], answer["message"])

    def line(self, deadline):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise DriverLost("the driver did not answer in time")
                data = os.read(self.process.stdout.fileno(), 1 << 20)
                if not data:
                    raise DriverLost("the driver ended")
                self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def log_tail(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()[-1500:].strip() or "(empty)"
