"""One tortured session: prompts that are posted, and readers that must all see the same log."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import suppress
from typing import Any

import httpx
import msgspec
from tests.faults.topology import Topology, http_client

from tailrace.client.sse import Parser

__all__ = ["KINDS", "STUCK_SECONDS", "Reader", "Session", "Violation"]

KINDS = ("plain", "cutting", "since", "late", "slow")
STUCK_SECONDS = 75.0  # without any event, though a run is not finished
SILENCE_SECONDS = 20.0  # without a byte: keep-alive comments come after 15 s


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was not kept."""

    rule: str
    session_id: str
    detail: str
    seq: int | None = None
    at: float = 0.0  # seconds since the harness began


class Session:
    """The log of one session as its readers saw it, each frame once: whoever differs is a violation."""

    def __init__(
        self,
        topology: Topology,
        session_id: str,
        rng: random.Random,
        began: float,
        patience: float = STUCK_SECONDS,
    ) -> None:
        self.topology = topology
        self.session_id = session_id
        self.rng = rng
        self.began = began
        self.patience = patience  # seconds; then whoever waits counts as stuck
        self.frames: dict[int, bytes] = {}  # seq: the exact data, as the first reader saw it
        self.by: dict[int, str] = {}
        self.accepted: dict[str, str] = {}  # run id: prompt
        self.agents: dict[str, str] = {}  # run id: agent
        self.posting = True
        self.violations: list[Violation] = []
        self.readers: list[Reader] = []
        self.answers: dict[int, int] = {}  # HTTP statuses of POSTs
        self.finished: set[str] = set()
        self.superseded = 0  # attempts

    @property
    def path(self) -> str:
        return f"/api/apps/{self.session_id}/agent"

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return not self.posting and self.accepted.keys() <= self.finished

    def blame(self, rule: str, detail: str, seq: int | None = None) -> None:
        """Note a violation."""
        at = round(time.monotonic() - self.began, 1)
        self.violations.append(
            Violation(rule=rule, session_id=self.session_id, detail=detail, seq=seq, at=at)
        )

    def silences(self) -> list[tuple[float, float]]:
        """When plain readers of a running run heard nothing: from, to, in seconds since the harness began."""
        found = [each for reader in self.readers if reader.kind == "plain" for each in reader.silences]
        return [(begin - self.began, end - self.began) for begin, end, _ in found]

    def see(self, seq: int, data: bytes, who: str) -> None:
        """A reader saw this."""
        known = self.frames.setdefault(seq, data)
        if known is data:
            self.by[seq] = who
            event = msgspec.json.decode(data)
            self.superseded += event["event_type"] == "attempt_superseded"
            if event["event_type"] == "finish":
                self.finished.add(event["run_id"])
        elif known != data:
            self.blame("same bytes", f"{self.by[seq]} saw {known!r}, {who} saw {data!r}", seq)

    async def post(self, prompt: str, *, api: int, twice: bool = False, agent: str = "default") -> str:
        """Post a prompt until it is accepted; both APIs at once with `twice`. Returns the run's id."""
        key = f"key-{self.rng.getrandbits(64):x}"
        posts = [self._post(prompt, key, api, agent)]
        if twice:
            posts.append(self._post(prompt, key, api + 1, agent))
        run_ids = set(await asyncio.gather(*posts))
        if len(run_ids) > 1:
            self.blame("idempotency", f"one key made the runs {sorted(run_ids)}")
        self.accepted.update(dict.fromkeys(run_ids, prompt))
        self.agents.update(dict.fromkeys(run_ids, agent))
        return run_ids.pop()

    async def _post(self, prompt: str, key: str, api: int, agent: str) -> str:
        headers = {
            "Authorization": f"Bearer {self.topology.token}",
            "Idempotency-Key": key,
            "Prefer": "respond-async",
        }
        body = {"prompt": prompt, "on_conflict": "enqueue", "agent": agent}
        deadline = time.monotonic() + self.patience
        while True:
            with suppress(httpx.TransportError):
                async with http_client(timeout=30) as client:
                    url = f"{self.topology.url(api)}{self.path}/generate"
                    answer = await client.post(url, json=body, headers=headers)
                status = answer.status_code
                self.answers[status] = self.answers.get(status, 0) + 1
                if status == 202:
                    return str(answer.json()["run_id"])
                if status != 503:
                    self.blame("post", f"api{api % 2} answered {status} to {key}: {answer.text[:300]}")
            if time.monotonic() > deadline:
                self.blame("post", f"not accepted within {self.patience:.0f} s: {prompt}")
                raise TimeoutError(prompt)
            api += 1
            await asyncio.sleep(0.3)


class Reader:
    """One client of a session, of one of the `KINDS`, over all its connections."""

    def __init__(self, session: Session, kind: str, number: int, rng: random.Random) -> None:
        self.name = f"{kind}{number}"
        self.kind = kind
        self.last = 0
        self.connections = 0
        self.lagged = 0
        self.silences: list[tuple[float, float, int]] = []  # from, to (monotonic), seq before
        self._session = session
        self._api = number + rng.randrange(2)
        self._rng = rng
        self._at = 0.0
        self._timestamp = 0.0
        self._within = False  # the last event promises more
        self._moved = time.monotonic()

    async def run(self) -> None:
        """Read until the session is done and all of it was seen."""
        if self.kind == "late":
            await asyncio.sleep(self._rng.uniform(3, 10))
        self._moved = time.monotonic()
        while not (self._session.done and self._all_seen()):
            if self._stuck():
                why = f"{self.name} got nothing for {self._session.patience:.0f} s"
                self._session.blame("stuck", why, self.last)
                return
            try:
                await self._connect()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            self._api += 1

    async def _connect(self) -> None:
        """One connection, until it ends, this client is tired of it, or there is nothing more to come."""
        connection = asyncio.create_task(self._connection())
        tired_at = time.monotonic() + self._patience()
        while not connection.done():
            await asyncio.wait({connection}, timeout=0.25)
            if time.monotonic() > tired_at or self._stuck() or (self._session.done and self._all_seen()):
                connection.cancel()
        with suppress(asyncio.CancelledError):
            await connection

    def _all_seen(self) -> bool:
        return self.last >= max(self._session.frames, default=0)

    def _stuck(self) -> bool:
        return time.monotonic() - self._moved > self._session.patience

    def _patience(self) -> float:
        return self._rng.uniform(0.3, 4.0) if self.kind in ("cutting", "since") else math.inf

    async def _connection(self) -> None:
        session = self._session
        self.connections += 1
        headers = {"Authorization": f"Bearer {session.topology.token}"}
        params = {"follow": "session"}
        since = self.kind == "since" and self.last > 0
        if since:
            params["since_timestamp"] = f"{self._timestamp:.6f}"
        elif self.last:
            headers["Last-Event-ID"] = f"{session.session_id}:{self.last}"
        url = f"{session.topology.url(self._api)}{session.path}/stream-continue"
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=5)
        async with (
            http_client(timeout=timeout) as client,
            client.stream("GET", url, headers=headers, params=params) as answer,
        ):
            if answer.status_code != 200:
                if answer.status_code not in (503, 404):
                    text = (await answer.aread()).decode(errors="replace")
                    session.blame("stream", f"{self.name}: {answer.status_code} {text[:200]}", self.last)
                await asyncio.sleep(0.3)
                return
            parser = Parser()
            async for chunk in answer.aiter_raw():
                for block in parser.feed(chunk):
                    self._take(block.event, block.id, block.data, since=since)
                if session.done and self._all_seen():
                    return
                if self.kind == "slow":
                    await asyncio.sleep(self._rng.uniform(0.0, 0.1))

    def _take(self, name: str, event_id: str | None, data: str, *, since: bool) -> None:
        session = self._session
        now = time.monotonic()
        if event_id is None:
            self.lagged += name == "stream.lagged"
            if name == "stream.reset":
                session.blame("reset", f"{self.name}: {data}", self.last)
            return
        sid, _, text = event_id.rpartition(":")
        seq = int(text)
        if sid != session.session_id:
            session.blame("isolation", f"{self.name} got {event_id}", self.last)
        session.see(seq, data.encode(), self.name)
        if seq <= self.last:
            if not since:
                session.blame("once", f"{self.name} got {seq} after {self.last}", seq)
            return
        if seq != self.last + 1:
            session.blame("order", f"{self.name} got {seq} after {self.last}", seq)
        if self._within and now - self._at > 0.6:
            self.silences.append((self._at, now, self.last))
        event: dict[str, Any] = msgspec.json.decode(data)
        if event["timestamp"] < self._timestamp:
            session.blame("time", f"{event['timestamp']} after {self._timestamp}", seq)
        self.last, self._at, self._timestamp, self._moved = seq, now, event["timestamp"], now
        self._within = event["event_type"] not in ("finish", "run_queued")
