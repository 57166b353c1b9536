"""How long an event takes from its insert to its bytes at the client, and a prompt to its first event.

Starts a MongoDB, a Valkey, an API and a worker of its own on loopback, and prints one table:

    python ops/bench/latency.py [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.embedded import mongod, valkey
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import connect
from tailrace.settings import Settings
from tailrace.tokens import mint
from tailrace.writer import Writer

EVENTS = 600  # a measurement
PER_SECOND = 50
PROMPTS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--append", metavar="SESSION", help=argparse.SUPPRESS)  # the writing child process
    options = parser.parse_args()
    if options.append:
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
        asyncio.run(_append(settings, options.append))
        return
    with _deployment() as settings:
        rows = {
            f"insert to client, {readers} readers": asyncio.run(_delivery(settings, readers))
            for readers in (1, 200)
        }
        rows["POST to first event"], rows["POST to agent_start"], rows["POST to first token"] = asyncio.run(
            _first_events(settings)
        )
    _print(rows, as_json=options.json)


@contextlib.contextmanager
def _deployment() -> Iterator[Settings]:
    with (
        tempfile.TemporaryDirectory() as name,
        mongod(Path(name) / "mongo") as mongodb_url,
        valkey(Path(name) / "valkey") as redis_url,
        contextlib.ExitStack() as stack,
    ):
        settings = Settings(
            mongodb_url=mongodb_url,
            redis_url=redis_url,
            port=free_port(),
            jwt_secret="only-for-this-measurement-on-loopback",
            offline_tokens_per_second=1000.0,
            max_runs_per_minute=0,
            max_concurrent_streams=0,
        )
        for child, module in (("api", ["tailrace.cli", "api"]), ("worker", ["tailrace_worker"])):
            process = Child(
                child,
                [sys.executable, "-m", *module],
                log=Path(name) / f"{child}.log",
                environ=child_environ(settings),
            )
            process.start()
            stack.callback(process.stop)
        _until_ready(settings)
        yield settings


def _until_ready(settings: Settings) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError), _client(settings) as client:
            if client.get("/readyz").is_success:
                client.post("/api/apps/warm/agent/generate", json={"prompt": "Hello"})
                return
        time.sleep(0.1)
    raise SystemExit("the API is not ready")


def _client(settings: Settings) -> httpx.Client:
    headers = {"Authorization": f"Bearer {mint(settings, user='bench')}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", headers=headers, timeout=60)


async def _delivery(settings: Settings, readers: int) -> list[float]:
    """Seconds from each event's timestamp, taken right before its insert, to its arrival at each reader."""
    session = f"readers{readers}"
    with _client(settings) as client:
        client.post(f"/api/apps/{session}/agent/generate", json={"prompt": "Hello"})
    open_readers = [asyncio.create_task(_read(settings, session)) for _ in range(readers)]
    await asyncio.sleep(2)
    writing = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--append", session, stdin=subprocess.PIPE
    )
    await writing.communicate(msgspec.json.encode(settings))
    seen = await asyncio.gather(*open_readers)
    return [seconds for one in seen for seconds in one]


async def _read(settings: Settings, session: str) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    path = f"/api/apps/{session}/agent/stream-continue?follow=session&since_timestamp=99999999999"
    token = mint(settings, user="bench")
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    seen: list[float] = []
    while len(seen) < EVENTS:
        line = await reader.readline()
        if b'"event_type":"custom"' in line:
            seen.append(time.time() - msgspec.json.decode(line[6:], type=_Stamped).timestamp)
    writer.close()
    return seen


class _Stamped(msgspec.Struct):
    timestamp: float


async def _append(settings: Settings, session: str) -> None:
    async def mine() -> bool:
        return True

    async with connect(settings) as database:
        log = EventLog(database, retention_seconds=3600)
        writer = Writer(log, session, run_id="bench", attempt=1, owns=mine)
        for nth in range(EVENTS):
            await writer.append([Draft(event_type="custom", data={"value": {"nth": nth, "text": "x" * 40}})])
            await asyncio.sleep(1 / PER_SECOND)


async def _first_events(settings: Settings) -> tuple[list[float], list[float], list[float]]:
    """Seconds from a POST to its stream's first event, to `agent_start`, and to the first token."""
    first, started, token = [], [], []
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{settings.port}",
        headers={"Authorization": f"Bearer {mint(settings, user='bench')}"},
    ) as client:
        for nth in range(PROMPTS):
            seen: dict[str, float] = {}
            began = time.perf_counter()
            path = f"/api/apps/prompt{nth}/agent/generate"
            async with client.stream("POST", path, json={"prompt": "Hello"}) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: ") and '"event_type"' in line:
                        kind = json.loads(line[6:])["event_type"]
                        seen.setdefault(kind, time.perf_counter() - began)
            first.append(seen["run_queued"])
            started.append(seen["agent_start"])
            token.append(seen["message_delta"])
    return first, started, token


def _print(rows: dict[str, list[float]], *, as_json: bool) -> None:
    figures = {name: (_ms(values, 50), _ms(values, 99), len(values)) for name, values in rows.items()}
    if as_json:
        print(json.dumps({name: {"p50_ms": a, "p99_ms": b, "n": n} for name, (a, b, n) in figures.items()}))
        return
    print(f"{'':32}{'p50 ms':>10}{'p99 ms':>10}{'n':>10}")
    for name, (middle, high, count) in figures.items():
        print(f"{name:32}{middle:10.1f}{high:10.1f}{count:10,}")


def _ms(values: list[float], percent: int) -> float:
    return round(1000 * statistics.quantiles(values, n=100)[percent - 1], 2)


if __name__ == "__main__":
    main()
