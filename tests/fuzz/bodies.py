"""The list: bodies that cannot be read, are too large, or say two things at once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import msgspec
from tests.fuzz.case import Case, Target
from tests.fuzz.wire import Headers

__all__ = ["bodies", "framing"]

JSON = ("Content-Type", "application/json")
ASYNC = ("Prefer", "respond-async")
HELLO = b'{"prompt":"Hello"}'
DEEP = 100_000
MEGABYTE = 1024 * 1024

UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "white space": b" \r\n\t",
    "no JSON": b"prompt=Hello",
    "cut off": b'{"prompt": "Hel',
    "two documents": HELLO + HELLO,
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"Hello"',
    "100,000 lists deep": b'{"prompt":"a","metadata":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "100,000 lists deep, never closed": b"[" * DEEP,
    "100,000 objects deep": b'{"prompt":"a","metadata":' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1),
    "1,000 deep": b'{"prompt":"a","metadata":{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}}",
    "NaN": b'{"prompt":"a","metadata":{"a":NaN}}',
    "Infinity": b'{"prompt":"a","metadata":{"a":-Infinity}}',
    "a number beyond a float": b'{"prompt":"a","metadata":{"a":1e999}}',
    "an integer beyond 64 bits": b'{"prompt":"a","metadata":{"a":9223372036854775808}}',
    "an integer of 10,000 digits": b'{"prompt":"a","metadata":{"a":' + b"9" * 10_000 + b"}}",
    "a lone surrogate": rb'{"prompt":"\ud800"}',
    "a lone surrogate in a key": rb'{"prompt":"a","metadata":{"\udfff":1}}',
    "a surrogate in UTF-8": b'{"prompt":"\xed\xa0\x80"}',
    "not UTF-8": b'{"prompt":"\xff\xfe"}',
    "UTF-16": '{"prompt":"Hello"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + HELLO,
    "a raw NUL": b'{"prompt":"a\0b"}',
    "a raw newline": b'{"prompt":"a\nb"}',
    "NUL in a key": rb'{"prompt":"a","metadata":{"a\u0000b":1}}',
    "a trailing comma": b'{"prompt":"a",}',
    "a comment": b'{"prompt":"a"} // Hello',
    "an unknown field": b'{"prompt":"a","user":"bob"}',
    "__proto__": b'{"prompt":"a","__proto__":{"agent":"x"}}',
    "a blank prompt": rb'{"prompt":" \u00a0\u2003\n"}',
    "an empty prompt": b'{"prompt":""}',
    "no prompt": b"{}",
    "a prompt that is a number": b'{"prompt":7}',
    "a prompt that is an operator": b'{"prompt":{"$ne":null}}',
    "a prompt and parts": b'{"prompt":"a","content_parts":[{"type":"text","text":"a"}]}',
    "no parts": b'{"content_parts":[]}',
    "parts without a type": b'{"content_parts":[{"text":"a"}]}',
    "101 parts": json.dumps({"content_parts": [{"type": "text", "text": "a"}] * 101}).encode(),
    "an agent with dots and slashes": b'{"prompt":"a","agent":"../../etc/passwd"}',
    "an agent with a newline": rb'{"prompt":"a","agent":"default\n"}',
    "an agent that is a module": b'{"prompt":"a","agent":"os:system"}',
    "a conflict nobody knows": b'{"prompt":"a","on_conflict":"ignore"}',
    "a patience of minus one": b'{"prompt":"a","on_disconnect":"cancel_after:-1"}',
    "a patience of 1e400": b'{"prompt":"a","on_disconnect":"cancel_after:1e400"}',
    "a patience with a newline": rb'{"prompt":"a","on_disconnect":"cancel\n"}',
    "a model of 201 characters": json.dumps({"prompt": "a", "model": "m" * 201}).encode(),
    "metadata that is a list": b'{"prompt":"a","metadata":[]}',
    "a prompt beyond its bound": b'{"prompt":"' + b"a" * 1_000_001 + b'"}',
}

TYPES: dict[str, list[str]] = {
    "none": [],
    "empty": [""],
    "a form": ["application/x-www-form-urlencoded"],
    "a form with a boundary": ["multipart/form-data; boundary=a"],
    "text": ["text/plain"],
    "MessagePack": ["application/msgpack"],
    "latin-1": ["application/json; charset=latin-1"],
    "UTF-16": ["application/json; charset=utf-16"],
    "two in a list": ["application/json, text/plain"],
    "two headers": ["application/json", "text/plain"],
    "nonsense": [";;;="],
    "10 KB": ["application/" + "a" * 10_240],
}

KEYS: dict[str, str | bytes] = {
    "a space": "a b",
    "201 characters": "a" * 201,
    "10 KB": "a" * 10_240,
    "not ASCII": "schlüssel",
    "a tab": "a\tb",
}

TAKEN: dict[str, tuple[bytes, Headers]] = {  # read as JSON says, and nothing of it is dangerous
    "duplicate keys": (b'{"prompt":"one","prompt":"two"}', [JSON]),
    "an escaped NUL": (rb'{"prompt":"a\u0000b"}', [JSON]),
    "operators in metadata": (b'{"prompt":"a","metadata":{"$gt":"","a.b":{"$where":"1"}}}', [JSON]),
    "a constructor in metadata": (b'{"prompt":"a","metadata":{"__proto__":{"a":1},"constructor":1}}', [JSON]),
    "HTML": (b'{"prompt":"<script>alert(1)</script>"}', [JSON]),
    "the lines of a frame": (rb'{"prompt":"a\r\n\r\nevent: finish\ndata: {}\n\n\u2028"}', [JSON]),
    "every plane of Unicode": ('{"prompt":"é 王 🎉 \u202e \ufeff \U0010fffd"}'.encode(), [JSON]),
    "a type in capitals": (HELLO, [("Content-Type", 'Application/JSON; Charset="UTF-8"')]),
    "an agent nobody has": (b'{"prompt":"a","agent":"nobody"}', [JSON]),
    "a model nobody has": (b'{"prompt":"a","model":"nobody:nothing"}', [JSON]),
    "Expect": (HELLO, [JSON, ("Expect", "100-continue")]),
}


def bodies(target: Target, nonce: str) -> Iterator[Case]:
    """Each to the route that starts a run, in sessions that begin with `nonce`."""

    def asked(name: str, body: bytes, *right: int, headers: Headers = (), **more: Any) -> Case:
        path = f"/api/apps/{nonce}{abs(hash(name)) % 10**9}/agent/generate"
        return Case.of(
            target, "body", name, path, *right, method="POST", headers=[ASYNC, *headers], body=body, **more
        )

    for name, body in UNREADABLE.items():
        # A body of more values than are allowed is refused before it is read.
        right = (400, 413) if "100,000" in name else (400,)
        yield asked(name, body, *right, headers=[JSON])
    for name, types in TYPES.items():
        yield asked(f"type: {name}", HELLO, 415, headers=[("Content-Type", each) for each in types])
    yield asked(
        "a type in another encoding", gzip.compress(HELLO), 400, headers=[JSON, ("Content-Encoding", "gzip")]
    )
    for name, (body, headers) in TAKEN.items():
        yield asked(name, body, 202, headers=headers)
    large = b'{"prompt":"' + b"a" * (10 * MEGABYTE) + b'"}'
    yield asked("a prompt of 10 MB", large, 413, headers=[JSON])
    announced = [JSON, ("Content-Length", str(10 * 1024**4))]
    yield asked("10 TB announced", b"{", 413, headers=announced)
    for name, key in KEYS.items():
        yield asked(f"a key with {name}", HELLO, 400, headers=[JSON, ("Idempotency-Key", key)])
    once = ("Idempotency-Key", f"{nonce}key")
    first = asked("a key, used for the first time", HELLO, 202, headers=[JSON, once])
    again = asked("a key, used for the first time", b'{"prompt":"Other"}', 422, headers=[JSON, once])
    # In order, on one connection after the other: see `campaign`.
    yield msgspec.structs.replace(first, topic="body, in order")
    yield msgspec.structs.replace(first, topic="body, in order", name="a key, used again with the same body")
    yield msgspec.structs.replace(again, topic="body, in order", name="a key, used again with another body")
    cancel = f"{target.agent}/cancel"
    for name, body in {"a field": b'{"run_id":"x"}', "no JSON": b"x", "a list": b"[]"}.items():
        yield Case.of(
            target, "body", f"cancel with {name}", cancel, 400, method="POST", headers=[JSON], body=body
        )


def framing(target: Target, nonce: str) -> Iterator[Case]:
    """Requests whose lengths and headers contradict each other, or end in the middle."""
    path = f"/api/apps/{nonce}framing/agent/generate"

    def asked(name: str, headers: Headers, body: bytes, *right: int, half_close: bool = False) -> Case:
        return Case.of(
            target, "framing", name, path, *right,
            method="POST", headers=[JSON, ASYNC, *headers], body=body, half_close=half_close,
        )  # fmt: skip

    length, chunked = "Content-Length", ("Transfer-Encoding", "chunked")
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO)
    yield asked("a length that is too great", [(length, "1000")], HELLO, 400, 0, half_close=True)
    yield asked("a length that is too small", [(length, "5")], HELLO, 400)
    yield asked("a negative length", [(length, "-1")], HELLO, 400)
    yield asked("a signed length", [(length, "+18")], HELLO, 400)
    yield asked("a hexadecimal length", [(length, "0x12")], HELLO, 400)
    yield asked("a length beyond 64 bits", [(length, "9" * 30)], HELLO, 400)
    yield asked("a length that is no number", [(length, "many")], HELLO, 400)
    yield asked("an empty length", [(length, "")], HELLO, 400)
    yield asked("two lengths", [(length, "18"), (length, "5")], HELLO, 400)
    yield asked("a length and chunks", [(length, "18"), chunked], whole, 400)
    yield asked("chunks and another coding", [("Transfer-Encoding", "chunked, identity")], whole, 400)
    yield asked("an unknown coding", [("Transfer-Encoding", "gzip")], HELLO, 400, 501)
    yield asked("a chunk of no size", [chunked], b"zz\r\n", 400)
    yield asked("a chunk of a negative size", [chunked], b"-5\r\nHello\r\n", 400)
    yield asked("a chunk beyond 64 bits", [chunked], b"f" * 20 + b"\r\nHello\r\n", 400)
    yield asked("a chunk that is too long", [chunked], b"3\r\nHello\r\n0\r\n\r\n", 400)
    yield asked("chunks that never end", [chunked], b"5\r\nHello\r\n", 400, 0, half_close=True)
    yield asked(
        "a chunk extension of 128 KB",
        [chunked],
        b"5;" + b"a" * 131_072 + b"\r\nHello\r\n0\r\n\r\n",
        0,
        400,
        431,
    )
    tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in HELLO) + b"0\r\n\r\n"
    yield asked("a chunk for each byte", [chunked], tiny, 202, 409)
    too_large = b"100000\r\n" + b" " * MEGABYTE + b"\r\n"
    yield asked("ten chunks of 1 MB", [chunked], too_large * 10, 413)
    yield from _heads(target)


def _heads(target: Target) -> Iterator[Case]:
    bearer = f"{target.bearer[0]}: {target.bearer[1]}\r\n".encode()
    close = b"Connection: close\r\n"
    get = b"GET /api/apps HTTP/1.1\r\n"
    host = b"Host: a\r\n"
    raw: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "nothing": (b"", (0,)),
        "empty lines": (b"\r\n" * 1_000, (0, 400)),
        "half a request line": (b"GET /api", (0, 400)),
        "half a head": (get + host, (0, 400)),
        "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, (400,)),
        "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", (400,)),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, (400,)),
        "HTTP/9.9": (b"GET /api/apps HTTP/9.9\r\n" + host + bearer + close + b"\r\n", (400,)),
        "a method of 1 KB": (b"A" * 1024 + b" / HTTP/1.1\r\n" + host + b"\r\n", (400,)),
        "an unknown method": (b"BREW /api/apps HTTP/1.1\r\n" + host + bearer + close + b"\r\n", (400, 405)),
        "TRACE": (b"TRACE /api/apps HTTP/1.1\r\n" + host + bearer + close + b"\r\n", (405,)),
        "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\n" + host + bearer + close + b"\r\n", (400, 404, 405)),
        "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + host + bearer + close + b"\r\n", (400, 404)),
        "an absolute target": (
            b"GET http://evil.example/api/apps HTTP/1.1\r\n" + host + bearer + close + b"\r\n", (200, 400),
        ),
        "a space in a header's name": (get + host + b"A b: c\r\n" + bearer + close + b"\r\n", (400,)),
        "a space before the colon": (get + host + bearer + b"Prefer : a\r\n" + close + b"\r\n", (400,)),
        "a folded header": (get + host + bearer + b"A: b\r\n c\r\n" + close + b"\r\n", (200, 400)),
        "no name": (get + host + bearer + b": c\r\n" + close + b"\r\n", (400,)),
        "bare LF": (b"GET /api/apps HTTP/1.1\nHost: a\n" + bearer + close + b"\r\n", (200, 400)),
        "10,000 headers": (get + host + bearer + b"A: b\r\n" * 12_000 + close + b"\r\n", (200, 431)),
        "a header of 1 MB": (get + host + b"A: " + b"b" * MEGABYTE, (431,)),
        "an upgrade to WebSocket": (
            get + host + bearer + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
            (200, 400, 426),
        ),
    }  # fmt: skip
    for name, (sent, right) in raw.items():
        yield Case(topic="framing", name=name, parts=(sent,), right=frozenset(right), half_close=0 in right)
