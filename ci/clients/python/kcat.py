"""Driver for kcat: one process per operation, as a person would run it."""
import os
import re
import subprocess
import tempfile

from protocol import BOOTSTRAP, FETCH_WAIT_MS, REQUEST_BYTES_MAX, BulkReading, ClientError, bulk_value, decode, encode, serve

CODES = {"Message size too large": 10, "Offset out of range": 1, "Unknown topic or partition": 3, "Invalid topic": 17,
         "Unknown partition": 3, "Unknown topic": 3}
# Offset, timestamp and lengths of key and value on one line, then the bytes, then the headers as kcat prints them.
FORMAT = "%o %T %K %S\n%k%s\n%h\n"


def run(*arguments, stdin=b"", timeout=60):
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, *arguments], input=stdin, capture_output=True, timeout=timeout)
    text = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        code = next((code for phrase, code in CODES.items() if phrase.lower() in text.lower()), None)
        raise ClientError(code, text.strip())
    return done.stdout, text


class Driver:
    def version(self):
        done = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True)
        return "kcat " + re.search(r"Version (\S+) .*?(librdkafka \S+)", done.stdout, re.S).expand(r"\1, \2")

    def list_topics(self):
        return re.findall(r'^  topic "(.*)" with', run("-L")[0].decode(), re.M)

    def describe_topic(self, topic):
        found = re.search(r'topic "(.*)" with (\d+) partitions:(.*)', run("-L", "-t", topic)[0].decode())
        if "nknown topic" in found[3]:
            raise ClientError(3, found[0])
        if "nvalid topic" in found[3]:
            raise ClientError(17, found[0])
        return int(found[2])

    def options(self, compression, idempotent, acks):
        return ["-z", compression, "-X", f"enable.idempotence={str(idempotent).lower()}", "-X", f"acks={acks}",
                "-X", f"message.max.bytes={REQUEST_BYTES_MAX}", "-X", "delivery.timeout.ms=30000"]

    def produce(self, topic, partition, records, compression, idempotent, acks, each):
        offsets = []
        for record in records:
            with tempfile.NamedTemporaryFile() as file:
                file.write(decode(record["v"]))
                file.flush()
                arguments = ["-P", "-t", topic, "-p", str(-1 if partition is None else partition), "-vvv",
                             *self.options(compression, idempotent, acks)]
                if record["k"] is not None:
                    arguments += ["-k", decode(record["k"]).decode()]
                for name, value in record["h"]:
                    arguments += ["-H", f"{name}={decode(value).decode()}"]
                _, text = run(*arguments, file.name)
            delivered = re.findall(r"Message delivered to partition \d+ \(offset (-?\d+)\)", text)
            offsets.append(int(delivered[0]) if delivered and int(delivered[0]) >= 0 else None)
        return offsets

    def produce_bulk(self, topic, partition, count, bytes, compression, idempotent):
        lines = b"\n".join(bulk_value(index, bytes) for index in range(count))
        before = self.watermarks(topic, partition)[1]
        run("-P", "-t", topic, "-p", str(partition), *self.options(compression, idempotent, -1), "-X", "linger.ms=20", stdin=lines, timeout=120)
        return before

    def messages(self, topic, partition, offset, count, timeout_ms, isolation="read_committed"):
        start = {"earliest": "beginning", "latest": "end"}.get(offset, str(offset))
        try:
            out, _ = run("-C", "-q", "-u", "-t", topic, "-p", str(partition), "-o", start, "-c", str(count), "-f", FORMAT,
                         "-X", f"fetch.wait.max.ms={FETCH_WAIT_MS}", "-X", "topic.auto.offset.reset=error", "-X", f"isolation.level={isolation}", timeout=timeout_ms / 1000)
        except subprocess.TimeoutExpired as expired:
            out = expired.stdout or b""
        at = 0
        while at < len(out):
            end = out.index(b"\n", at)
            offset, timestamp, key_bytes, value_bytes = (int(n) for n in out[at:end].split())
            at = end + 1
            key = None if key_bytes < 0 else out[at:at + key_bytes]
            at += max(key_bytes, 0)
            value = None if value_bytes < 0 else out[at:at + value_bytes]
            at += max(value_bytes, 0) + 1
            end = out.index(b"\n", at)
            yield offset, timestamp, key, value, out[at:end]
            at = end + 1

    def consume(self, **arguments):
        """kcat prints headers as text, `name=value` with commas between: answered so, for the suite to compare as text."""
        return [{"o": offset, "k": encode(key), "v": encode(value), "ts": timestamp, "tt": None, "h": encode(headers)}
                for offset, timestamp, key, value, headers in self.messages(**arguments)]

    def consume_bulk(self, **arguments):
        reading = BulkReading()
        for offset, _, _, value, _ in self.messages(**arguments):
            reading.take(offset, value)
        return reading.answer()

    def query(self, topic, partition, ts):
        out, _ = run("-Q", "-t", f"{topic}:{partition}:{ts}")
        return int(re.search(r"offset (-?\d+)", out.decode())[1])

    def watermarks(self, topic, partition):
        return [self.query(topic, partition, -2), self.query(topic, partition, -1)]

    def offset_for_time(self, topic, partition, ts):
        offset = self.query(topic, partition, ts)
        return offset if offset >= 0 else -1


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    serve(Driver())
