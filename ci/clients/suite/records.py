"""The records that clients write and must read back, and how what was read is compared."""
import hashlib
import time

from suite.driver import decode, encode

EVERY_BYTE = bytes(range(256))


def record(key, value, headers=(), ts=None):
    return {"k": encode(key), "v": encode(value), "h": [[name, encode(data)] for name, data in headers], "ts": ts}


def sample(family, label="label"):
    """Records of every shape this client can express, in an order that must be kept; their times lie an hour back, 1 s apart."""
    shapes = [(b"plain", b"hello", []), (None, b"no key", []), (b"same", b"first", []), (b"same", b"second", [("one", b"1")]),
              (b"compressible", b"the quick brown fox " * 2000, []),
              (b"headers", b"many", [("a", b"1"), ("a", b"2"), ("b", b"three")]),
              ("schlüssel".encode(), "größe 漢字".encode(), [("name", "wert".encode())]),
              (b"text", label.encode(), [])]
    if family.empty_keys:
        shapes.append((b"", b"empty key", []))
    if family.binary:
        shapes += [(EVERY_BYTE, EVERY_BYTE[::-1], [("bytes", EVERY_BYTE), ("empty", b"")]), (b"empty value", b"", []), (b"gone", None, [])]
    if family.writes_null_headers:
        shapes.append((b"null header", b"v", [("null", None)]))
    base = int(time.time() * 1000) - 3_600_000
    return [record(key, value, headers, base + 1000 * index if family.sets_timestamps else None)
            for index, (key, value, headers) in enumerate(shapes)]


def headers_text(record):
    """Headers as kcat prints them: as text that ends at a zero byte."""
    return b",".join(name.encode() + b"=" + (b"NULL" if data is None else decode(data).split(b"\0")[0]) for name, data in record["h"])


def expect_same(reader, written, read, first_offset=0, offsets=None):
    """`read` by `reader` must be `written`, in order, at consecutive offsets from `first_offset`."""
    if len(read) != len(written):
        raise AssertionError(f"{len(written)} records were written, {len(read)} read")
    for index, (want, got) in enumerate(zip(written, read)):
        offset = offsets[index] if offsets else first_offset + index
        if got["o"] != offset:
            raise AssertionError(f"record {index} has offset {got['o']}, not {offset}")
        for field, what in (("k", "key"), ("v", "value")):
            if got[field] != want[field] and not (not reader.empty_keys and not want[field] and not got[field]):
                raise AssertionError(f"record {index} has {what} {decode(got[field])!r}, not {decode(want[field])!r}")
        if reader.text_headers:
            if decode(got["h"]) != headers_text(want):
                raise AssertionError(f"record {index} has headers {decode(got['h'])!r}, not {headers_text(want)!r}")
        else:
            wanted, found = ([[name, data if reader.null_headers else data or ""] for name, data in one["h"]] for one in (want, got))
            if found != wanted:
                raise AssertionError(f"record {index} has headers {found}, not {wanted}")
        if want["ts"] is not None and got["ts"] != want["ts"]:
            raise AssertionError(f"record {index} has time {got['ts']}, not {want['ts']}")
        if got["tt"] not in (None, "create"):
            raise AssertionError(f"record {index} has a time of type {got['tt']}, not create")


def bulk_digest(count, size):
    digest = hashlib.sha256()
    for index in range(count):
        unit = b"%010d " % index
        digest.update((unit * (size // len(unit) + 1))[:size])
    return digest.hexdigest()
