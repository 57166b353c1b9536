"""(i) Readers that take nothing: what the others notice of them, and what they cost the server."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec
from ops.bench.delivery import Flow, measured
from ops.bench.filling import filled
from ops.bench.process import peak
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import TAILRACE

__all__ = ["ALONE", "BESIDE", "deaf"]

DEAF = 200
ALONE, BESIDE = "200 streams alone", "200 streams beside 200 that take nothing"
_STREAMS = 200
_EVENTS, _EVENT_BYTES = 100, 20_000  # 2 MB that wait for each of the deaf
_RECEIVE_BYTES = 4096  # what the kernel may take in their place
_LOOK_SECONDS = 0.2


def deaf(run: Run) -> Iterator[Reading]:
    """200 streams with 200 events/s, alone, and beside 200 readers that read nothing, and come again."""
    for _ in run.interleaved(TAILRACE):
        for case in (ALONE, BESIDE):
            yield _one(run, case)


def _one(run: Run, case: str) -> Reading:
    run.say(f"(i) {case}: {TAILRACE.label}")
    streams = run.many(_STREAMS, least=5)
    flow = Flow(load="i", case=case, sessions=streams, rate=run.many(200, least=20), seconds=run.seconds(60))
    with run.deployment.place(streams + 1) as place:
        asyncio.run(filled(place, place.sessions[-1:], _EVENTS, text_bytes=_EVENT_BYTES))
        with TAILRACE.server(place) as server, peak(server.pid) as seen, ExitStack() as stack:
            if case == BESIDE:
                stack.enter_context(_taking_nothing(server.port, server.streams()[-1], run.many(DEAF)))
            reading = measured(run, server, place, flow)
    grown = {"memory_grown_mib": (seen.most - seen.first) / 2**20}
    return msgspec.structs.replace(reading, values={**reading.values, **grown})


@contextmanager
def _taking_nothing(port: int, request: bytes, count: int) -> Iterator[None]:
    """That many connections which ask and never read; each that is cut comes back."""
    over = threading.Event()
    thread = threading.Thread(target=_take_nothing, args=(port, request, count, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _take_nothing(port: int, request: bytes, count: int, over: threading.Event) -> None:
    cut = select.poll()
    with ExitStack() as stack:
        asking: dict[int, socket.socket] = {}
        while not over.wait(_LOOK_SECONDS):
            for fd, _ in cut.poll(0):
                cut.unregister(fd)
                asking.pop(fd).close()
            while len(asking) < count:
                reader = stack.enter_context(_asking(port, request))
                asking[reader.fileno()] = reader
                cut.register(reader, 0)  # only an error or a reset


def _asking(port: int, request: bytes) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    reader.connect(("127.0.0.1", port))
    reader.sendall(request)
    return reader
