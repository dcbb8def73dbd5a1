"""The driver's side of the line protocol (see README.md), shared by the Python drivers: reading operations, answering, bytes."""
import base64
import hashlib
import json
import os
import sys
import traceback

BOOTSTRAP = os.environ["BOOTSTRAP"]
FETCH_WAIT_MS = 5000
REQUEST_BYTES_MAX = 20_000_000


class ClientError(Exception):
    """What the client reported, with Kafka's error code, or None when it gave none."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def decode(text):
    return None if text is None else base64.b64decode(text)


def bulk_value(index, size):
    unit = b"%010d " % index
    return (unit * (size // len(unit) + 1))[:size]


class BulkReading:
    """Sums up consumed values as `consume_bulk` answers them."""

    def __init__(self):
        self.count, self.next, self.contiguous, self.digest = 0, None, True, hashlib.sha256()

    def take(self, offset, value):
        if self.next is not None and offset != self.next:
            self.contiguous = False
        self.next = offset + 1
        self.count += 1
        self.digest.update(value)

    def answer(self):
        return {"count": self.count, "contiguous": self.contiguous, "sha256": self.digest.hexdigest()}


def serve(driver):
    """Answers operations with the driver's methods of the same name until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a client prints must not get between the answers
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        try:
            answer = {"ok": getattr(driver, operation)(**request)}
        except ClientError as error:
            answer = {"error": error.code, "message": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": None, "message": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
