"""The load generator where there is no C compiler: loadgen.c in asyncio, with the same words.

It costs five to ten times as much, so on a machine with few cores it takes from what it measures.
"""

from __future__ import annotations

import asyncio
import re
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import uvloop
from ops.bench.histogram import Histogram
from ops.bench.peer import tell

_STAMP = re.compile(rb"~([TW])([0-9a-f]{16})\.([0-9a-f]{8})")
_HEAD_END = b"\r\n\r\n"


class _Stream(asyncio.Protocol):
    def __init__(self, generator: _Generator, request: bytes) -> None:
        self.began = time.monotonic_ns()
        self.first = self.mark = self.token = self.end = self.bytes = self.events = self.last = 0
        self.refused = False
        self._generator = generator
        self._request = request
        self._rest = b""
        self._in_body = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.bytes += len(data)
        text = self._rest + data
        if not self._in_body:
            head, end, text = text.partition(_HEAD_END)
            self._rest = head
            if not end:
                return
            self._in_body = True
            self._rest = b""
            if head[8:12] != b" 200":
                self.refused = True
                self.transport.close()
                return
        if text and not self.first:
            self.first = now
            self._generator.answered += 1
        if text:
            self._take(text, now)

    def connection_lost(self, error: Exception | None) -> None:
        self.end = time.monotonic_ns()
        self._generator.gone(self)

    def _take(self, text: bytes, now: int) -> None:
        generator = self._generator
        if generator.mark and not self.mark and generator.mark in text:
            self.mark = now
        begin = 0
        for found in _STAMP.finditer(text):
            begin = found.end()
            place = int(found[3], 16)
            if place <= self.last:
                generator.doubles += not generator.once
                continue
            generator.holes += place - self.last - 1 if self.last else 0
            self.token = self.token or now
            self.last = place
            self.events += 1
            generator.events += 1
            if found[1] == b"T":
                generator.latencies.append((now - int(found[2], 16)) / 1e9)
        cut = text.rfind(b"~", max(begin, len(text) - 26))
        self._rest = text[cut:] if cut >= 0 else b""


class _Generator:
    def __init__(self, port: int, requests: list[bytes], options: dict[str, float], mark: bytes) -> None:
        self.mark = mark
        self.once = bool(options.get("once"))
        self.events = self.holes = self.doubles = self.answered = self.refused = self.lost = self.closed = 0
        self.latencies: deque[float] = deque()
        self.streams: list[_Stream] = []
        self._port = port
        self._requests = requests
        self._options = options
        self._over = asyncio.Event()
        self._expected = sys.maxsize

    def gone(self, stream: _Stream) -> None:
        self.closed += 1
        self.refused += not stream.first
        self.lost += bool(stream.first) and not stream.refused
        if self._options.get("finish") and self.closed == int(self._options.get("n", 1)):
            self._over.set()

    async def run(self, mode: str) -> None:
        began = time.monotonic()
        tasks = [asyncio.create_task(self._obey()), asyncio.create_task(self._watch())]
        opening = self._churn() if mode == "churn" else self._open(began)
        tasks.append(asyncio.create_task(opening))
        await self._over.wait()
        for task in tasks:
            task.cancel()
        seconds = time.monotonic() - began
        tell(
            "end",
            opened=len(self.streams),
            answered=self.answered,
            refused=self.refused,
            lost=self.lost,
            events=self.events,
            measured=len(self.latencies),
            holes=self.holes,
            doubles=self.doubles,
            least=min((stream.events for stream in self.streams), default=0),
            most=max((stream.events for stream in self.streams), default=0),
            bytes=sum(stream.bytes for stream in self.streams),
            seconds=seconds,
            cpu_seconds=time.process_time(),
            latency=Histogram.of(self.latencies),
            joining=Histogram.of((s.first - s.began) / 1e9 for s in self.streams if s.first),
            streams=[_account(s) for s in self.streams] if self._options.get("details") else (),
        )

    async def _open(self, began: float) -> None:
        count, rate = int(self._options.get("n", 1)), self._options.get("rate")
        for nth in range(count):
            if rate:
                await asyncio.sleep(max(0.0, began + nth / rate - time.monotonic()))
            while nth - self.answered - self.refused >= self._options.get("inflight", 64):  # noqa: ASYNC110 - one wait for many
                await asyncio.sleep(0.001)
            await self._start(nth)
        while self.answered + self.refused < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        seconds = time.monotonic() - began
        tell("ready", answered=self.answered, refused=self.refused, seconds=seconds)

    async def _churn(self) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        for nth in range(sys.maxsize):
            await asyncio.sleep(max(0.0, began + nth / self._options["rate"] - time.monotonic()))
            stream = await self._start(nth)
            loop.call_later(self._options["hold_ms"] / 1_000, stream.transport.close)

    async def _start(self, nth: int) -> _Stream:
        loop = asyncio.get_running_loop()
        stream = _Stream(self, self._requests[nth % len(self._requests)])
        self.streams.append(stream)
        await loop.create_connection(lambda: stream, "127.0.0.1", self._port)
        return stream

    async def _watch(self) -> None:
        while self.events < self._expected:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self._over.set()

    async def _obey(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            word, _, number = line.decode().partition(" ")
            if word.strip() == "stop":
                break
            self._expected = int(number)
        self._over.set()


def _account(stream: _Stream) -> tuple[int, ...]:
    moments = (stream.first, stream.mark, stream.token, stream.end)
    return stream.events, stream.bytes, *(moment - stream.began if moment else 0 for moment in moments)


def _requests(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def main() -> None:
    """Read as the command line says."""
    _host, port, path, mode, *rest = sys.argv[1:]
    options = dict(each.split("=", 1) for each in rest)
    mark = options.pop("mark", "").encode()
    numbers = {name: float(value) for name, value in options.items()}

    async def run() -> None:
        await _Generator(int(port), _requests(Path(path)), numbers, mark).run(mode)

    with suppress(BrokenPipeError):
        uvloop.run(run())


if __name__ == "__main__":
    main()
