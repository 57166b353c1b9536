"""Witnesses: other users, who run and read while the list is sent, and must notice nothing of it."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import httpx
import msgspec
from tests.e2e.stack import Reader, Stack
from tests.fuzz.case import CANARY

from tailrace.digest import Digest

__all__ = ["Witness"]

RUN_WITHIN = 120.0  # seconds, on a machine that does much else


class Seen(msgspec.Struct, kw_only=True):
    """What a witness saw, in numbers."""

    runs: int = 0
    events: int = 0
    reconnects: int = 0
    longest_silence: float = 0.0  # seconds between two frames of a run that is under way


class Witness:
    """One user, one session: posts prompts and reads them live, and again over connections that break."""

    def __init__(self, stack: Stack, nth: int, *, seed: int) -> None:
        self.user = f"witness-{nth}"
        self.session = f"witness-{seed}-{nth}"
        self.secret = f"{CANARY}-{nth}"
        self.seen = Seen()
        self.wrong: list[str] = []
        self._stack = stack
        self._random = random.Random(f"{seed} {nth}")
        self._resumed = Reader(stack, self.session, user=self.user)

    async def watch(self, enough: asyncio.Event) -> None:
        """Run after run until `enough`, at least one; then read all of it once more."""
        while not self.wrong and not (self.seen.runs and enough.is_set()):
            await self._run()
        replayed = Reader(self._stack, self.session, user=self.user)
        await replayed.read()
        if [frame.data for frame in replayed.events] != [frame.data for frame in self._resumed.events]:
            self.wrong.append("the replay differs from what was read")

    async def _run(self) -> None:
        live = Reader(self._stack, self.session, user=self.user)
        words = self._random.randint(40, 160)
        expected = self.seen.runs + 1
        try:
            async with asyncio.timeout(RUN_WITHIN), asyncio.TaskGroup() as group:
                group.create_task(live.generate(f"write {words} words about {self.secret}"))
                group.create_task(self._resume(expected))
        except (TimeoutError, ExceptionGroup) as error:
            self.wrong.append(f"run {expected}: {error!r} after {len(live.frames)} frames")
            return
        self.seen.runs = expected
        self.seen.events += len(live.events)
        silences = [later.at - earlier.at for earlier, later in pairwise(live.events)]
        self.seen.longest_silence = max([self.seen.longest_silence, *silences])
        self._compare(live)

    async def _resume(self, finishes: int) -> None:
        """Read on until so many runs have finished, with breaks at random moments."""
        while sum(frame.event == "finish" for frame in self._resumed.events) < finishes:
            try:
                async with asyncio.timeout(self._random.uniform(0.05, 1.5)):
                    await self._resumed.read()
            except TimeoutError:
                self.seen.reconnects += 1
            except AssertionError as error:
                if "404" not in str(error) or self._resumed.frames:  # it is not there before its first run
                    self.wrong.append(str(error))
                    return
            except httpx.TransportError as error:
                self.wrong.append(f"a connection broke: {error!r}")
                return
            await asyncio.sleep(0.02)

    def _compare(self, live: Reader) -> None:
        seqs = self._resumed.seqs
        if seqs != list(range(1, len(seqs) + 1)):
            self.wrong.append(f"order: {seqs[-40:]}")
        frames = [frame.data for frame in live.events]
        if frames != [frame.data for frame in self._resumed.events[-len(frames) :]]:
            self.wrong.append("the two readers saw different events")
        chain = Digest()
        for frame in live.events[:-1]:
            chain.update(frame.data.encode())
        finish = live.events[-1].json
        if (finish["event_type"], finish["status"], finish["digest"]) != (
            "finish",
            "success",
            chain.hexdigest(),
        ):
            self.wrong.append(f"the run ends with {finish}")
        if any(frame.json["session_id"] != self.session for frame in live.frames if frame.id):
            self.wrong.append("an event of another session")
