"""The list: session ids that cannot be one, and cursors and timestamps that name no place in a log."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tests.fuzz.case import Case, Target

__all__ = ["cursors", "session_ids", "timestamps"]

SESSION_IDS: dict[str, str] = {  # as they stand in the path
    "empty": "",
    "an operator": "$gt",
    "an operator's object": quote('{"$gt":""}'),
    "a dot": "a.b",
    "dots": "..",
    "dots, encoded": "%2e%2e",
    "dots and a slash, encoded": "%2e%2e%2f",
    "a slash, encoded": "a%2Fb",
    "dots and a slash, encoded twice": "%252e%252e%252f",
    "a backslash": "..%5c..%5c",
    "NUL": "%00",
    "NUL behind a good one": "fuzz%00",
    "CR and LF": "fuzz%0d%0aX-Injected:%201",
    "a newline behind a good one": "fuzz%0a",
    "a space": "a%20b",
    "a tab": "a%09b",
    "a look-alike in Cyrillic": quote("ѕеssion"),
    "full-width": quote("ｓ１"),
    "Arabic digits": quote("s١٢"),
    "a right-to-left mark": quote("fuzz\u200f"),
    "a right-to-left override": quote("\u202efuzz"),
    "zero width": quote("fu\u200bzz"),
    "a combining accent": quote("fuzze\u0301"),
    "not UTF-8": "%ff%fe",
    "an overlong slash": "%c0%af",
    "a surrogate": "%ed%a0%80",
    "a broken escape": "%zz",
    "a colon, as in an event's id": "fuzz:1",
    "a semicolon": "fuzz;a=1",
    "a quote": "fuzz%27%20or%201=1",
    "HTML": quote("<script>alert(1)</script>"),
    "65 characters": "a" * 65,
    "10 KB": "a" * 10_240,
}

TIMESTAMPS: dict[str, str] = {  # as they stand in the query
    "empty": "",
    "nan": "nan",
    "NaN": "NaN",
    "inf": "inf",
    "minus inf": "-inf",
    "plus inf": "%2Binf",
    "Infinity": "Infinity",
    "1e308": "1e308",
    "1e400": "1e400",
    "an exponent": "1e3",
    "-1": "-1",
    "-0": "-0",
    "+1": "%2B1",
    "1e18 in digits": "1" + "0" * 18,
    "400 digits": "9" * 400,
    "10,000 digits": "9" * 10_000,
    "ten decimals": "1.0123456789",
    "hexadecimal": "0x10",
    "octal": "0o17",
    "an underscore": "1_000",
    "a comma": "1,5",
    "a point alone": ".",
    "a point before": ".5",
    "a point behind": "5.",
    "two points": "1.2.3",
    "Arabic digits": quote("١٢٣"),
    "full-width digits": quote("１２３"),
    "superscript": quote("1²"),
    "a space before": "%201",
    "a space behind": "1%20",
    "a newline behind": "1%0a",
    "a no-break space behind": quote("1\u00a0"),
    "NUL behind": "1%00",
    "not UTF-8": "%ff",
    "an operator": quote('{"$gt":0}'),
    "a date": "2026-11-22T00:00:00Z",
}

# What a header can carry, what the stream says of it, and whether a page refuses it just so.
CURSORS: dict[str, tuple[str | bytes, str]] = {
    "nonsense": ("nonsense", "malformed"),
    "negative": ("{session}:-1", "malformed"),
    "zero": ("{session}:0", "malformed"),
    "2^63": ("{session}:9223372036854775808", "malformed"),
    "2^64": ("{session}:18446744073709551616", "malformed"),
    "400 digits": ("{session}:" + "9" * 400, "malformed"),
    "a fraction": ("{session}:1.5", "malformed"),
    "an exponent": ("{session}:1e3", "malformed"),
    "hexadecimal": ("{session}:0x1", "malformed"),
    "a leading zero": ("{session}:01", "malformed"),
    "Arabic digits": ("{session}:١", "malformed"),
    "two": ("{session}:1,{session}:2", "malformed"),
    "an operator": ('{{"$gt":""}}', "malformed"),
    "HTML": ("<script>alert(1)</script>", "malformed"),
    "a right-to-left override": ("\u202e{session}:1", "malformed"),
    "60 KB": ("a" * 60_000, "malformed"),
    "beyond the tail": ("{session}:99999999", "unknown"),
    "far beyond the tail": ("{session}:999999999999999999", "unknown"),
    "another session's": ("{other}:1", "other_session"),
    "somebody else's": ("{foreign}:1", "other_session"),
}


def session_ids(target: Target) -> Iterator[Case]:
    """Each on four routes: nothing is found, nothing is made."""
    json = ("Content-Type", "application/json")
    for name, text in SESSION_IDS.items():
        base = f"/api/apps/{text}/agent"
        for method, rest in (("GET", "events"), ("GET", "stream-continue"), ("POST", "cancel")):
            yield Case.of(target, "session id", f"{name}: {rest}", f"{base}/{rest}", 400, 404, method=method)
        yield Case.of(
            target, "session id", f"{name}: generate", f"{base}/generate", 400, 404,
            method="POST", headers=[json], body=b'{"prompt":"Hello"}',
        )  # fmt: skip
    raw = "/api/apps/ѕ\u200f/agent/events".encode()
    yield Case.of(target, "session id", "raw UTF-8 in the request line", raw, 400)
    yield Case.of(target, "session id", "raw NUL in the request line", b"/api/apps/a\0b/agent/events", 400)
    yield Case.of(target, "session id", "64 KB", f"/api/apps/{'a' * 66_000}/agent/events", 400, 431)


def timestamps(target: Target) -> Iterator[Case]:
    """Each for the stream, and for the pages that take one by another name."""
    places = {
        f"{target.agent}/stream-continue": "since_timestamp",
        f"{target.agent}/messages": "after",
        f"{target.agent}/runs": "before",
        "/api/apps": "before",
    }
    for path, parameter in places.items():
        where = f"{path.rpartition('/')[2]}?{parameter}"
        for name, text in TIMESTAMPS.items():
            asked = f"{path}?{parameter}={text}"
            yield Case.of(target, "timestamp", f"{name}: {where}", asked, 400, holds=parameter.encode())
        twice = f"{path}?{parameter}=1&{parameter}=1"
        yield Case.of(target, "timestamp", f"repeated: {where}", twice, 400, holds=b"must be given once")
    stream = f"{target.agent}/stream-continue?since_timestamp="
    first = f"id: {target.session}:1\n".encode()
    yield Case.of(target, "timestamp", "the beginning of time", f"{stream}0", 200, holds=first)
    yield Case.of(target, "timestamp", "the future, and nothing runs", f"{stream}99999999999", 204)


def cursors(target: Target) -> Iterator[Case]:
    """Each as a header and in the query: the stream says why it begins anew, a page refuses."""
    stream, events = f"{target.agent}/stream-continue", f"{target.agent}/events"
    for name, (form, reason) in CURSORS.items():
        text = str(form).format(session=target.session, other=target.other, foreign=target.foreign)
        said = f'event: stream.reset\ndata: {{"reason":"{reason}"'.encode()
        yield Case.of(
            target, "Last-Event-ID", name, stream, 200, headers=[("Last-Event-ID", text)], holds=said
        )
        if len(text) < 20_000:
            asked = f"{stream}?last_event_id={quote(text)}"
            yield Case.of(target, "Last-Event-ID", f"{name}, in the query", asked, 200, holds=said)
            said = f'"reason":"{reason}"'.encode()
            asked = f"{events}?after={quote(text)}"
            yield Case.of(target, "Last-Event-ID", f"{name}, of a page", asked, 400, holds=said)
    yield from _expired(target)
    for name, raw in {"NUL": b"a\0b", "a CR": b"a\rb", "DEL": b"a\x7fb", "64 KB": b"a" * 66_000}.items():
        right = 431 if len(raw) > 60_000 else 400
        headers = [("Last-Event-ID", raw)]
        yield Case.of(target, "Last-Event-ID", f"{name}, raw", stream, right, headers=headers)
    split = [("Last-Event-ID", b"a\r\nX-Injected: 1\r\n\r\nGET /healthz HTTP/1.1")]
    yield Case.of(target, "Last-Event-ID", "CR and LF", stream, 200, headers=split, holds=b"stream.reset")
    for name, text in {"NUL": "%00", "CR and LF": "1%0d%0aid:%209", "not UTF-8": "%ff"}.items():
        asked = f"{stream}?last_event_id={text}"
        said = b'event: stream.reset\ndata: {"reason":"malformed"'
        yield Case.of(target, "Last-Event-ID", f"{name}, in the query", asked, 200, holds=said)
    asked = f"{stream}?last_event_id=a&last_event_id=b"
    yield Case.of(target, "Last-Event-ID", "repeated in the query", asked, 400)


def _expired(target: Target) -> Iterator[Case]:
    path, cursor = f"/api/apps/{target.expired}/agent", f"{target.expired}:1"
    said = b'event: stream.reset\ndata: {"reason":"expired"'
    headers = [("Last-Event-ID", cursor)]
    stream = f"{path}/stream-continue"
    yield Case.of(target, "Last-Event-ID", "expired", stream, 200, headers=headers, holds=said)
    asked = f"{path}/events?after={cursor}"
    yield Case.of(target, "Last-Event-ID", "expired, of a page", asked, 410, holds=b'"reason":"expired"')
