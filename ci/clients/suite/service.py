"""A Java program beside the broker that answers HTTP: started, asked, stopped and killed by a check."""
import json
import subprocess
import time
import urllib.error
import urllib.request

from suite.broker import free_port

# Long enough for a JVM on a busy machine, and for a member that was killed to be missed by its group.
PATIENCE_SECONDS = 120
JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
# What a JVM ends with that ran its hooks after SIGTERM: 128 and the signal's number.
TERMINATED = 143


class Service:
    def __init__(self, name, directory):
        self.name, self.port, self.log, self.process = name, free_port(), directory / f"{name}.log", None

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*JAVA, *self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number):
        """Ends the program by a signal and answers its exit status; nothing when it does not run."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(timeout=PATIENCE_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def call(self, method, path, body=None):
        """The answer's JSON; an answer that is an error is raised as such."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method, headers={"Content-Type": "application/json"},
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def until(self, what, holds):
        """Asks until `holds()` is true; a program that does not answer yet is asked again."""
        deadline, last = time.monotonic() + PATIENCE_SECONDS, None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                last = holds()
                if last is True:
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {PATIENCE_SECONDS} s, last {last}; the program says: {self.log.read_text(errors='replace')[-1500:]}")
