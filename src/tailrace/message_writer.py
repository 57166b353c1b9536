"""The message writer: one attempt's place in a session's messages, fenced as its place in the log is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from tailrace.errors import Fenced
from tailrace.messages import Message, Messages
from tailrace.mongo import patiently
from tailrace.runs import Run

__all__ = ["MessageWriter"]

_TICK = 1e-6  # seconds; the least by which a message's time exceeds the one before, under any clock


class MessageWriter:
    """Adds one attempt's messages to its session. Not for use by two tasks at once.

    A message takes the place right behind the last one that this writer knows of, and a place is never given
    up. A further attempt, and whoever ends the run in its place, begins with a mark there: whatever the
    attempt before has on its way stands before the mark, or collides.
    """

    def __init__(
        self,
        messages: Messages,
        run: Run,
        *,
        owns: Callable[[], Awaitable[bool]],
        behind: Message | None,
        late: bool = False,
    ) -> None:
        """A writer for this attempt of `run`, which says by `owns` whether it still may write.

        `behind` is the session's newest message, but for the run's own, as it was before the attempt took the
        run, or after that if `late`. If before, the place needs no look at the fence: whoever has the run
        later looked later.
        """
        self._messages = messages
        self._run = run
        self._owns = owns
        self._last = behind
        self._parent_id = behind.message_id if behind else None
        self._unfenced = late  # whether the place was looked for since the run was taken

    async def begin(self, prompt: Message) -> None:
        """Keep what was asked, and nothing that an attempt before has told of this run.

        Raises `Fenced` when the run is no longer this attempt's.
        """
        if self._run.attempt == 1:
            await self.add(prompt)
            return
        held = await self.holds(prompt)
        mark = self._last.position if self._last else 0
        await patiently(lambda: self._messages.void(self._run, before=mark))
        if held:
            self._parent_id = prompt.message_id
        else:
            await self.add(prompt)

    async def holds(self, prompt: Message) -> bool:
        """Whether an attempt before has kept what was asked; from now on none of them adds a message.

        Raises `Fenced` when the run is no longer this attempt's.
        """
        if self._run.attempt > 1:
            await self._placed(_mark(self._run))
        return await patiently(lambda: self._messages.holds(prompt.message_id))

    async def add(self, message: Message) -> Message:
        """Keep `message` as the newest; durable on return, with its time, place and parent set.

        Raises `Fenced` when the run is no longer this attempt's.
        """
        placed = await self._placed(msgspec.structs.replace(message, parent_id=self._parent_id))
        self._parent_id = placed.message_id
        return placed

    async def _placed(self, message: Message) -> Message:
        while True:
            last = self._last
            placed = msgspec.structs.replace(
                message,
                timestamp=max(time.time(), last.timestamp + _TICK) if last else time.time(),
                position=last.position + 1 if last else 1,
            )
            if self._unfenced and not await patiently(self._owns):
                raise Fenced
            self._unfenced = False
            if await patiently(lambda placed=placed: self._messages.add(placed)):  # type: ignore[misc]
                self._last = placed
                return placed
            # Looked at before the fence is: a later attempt can then only be behind it, where this collides.
            self._last = await patiently(lambda: self._messages.newest(self._run.session_id))
            self._unfenced = True


def _mark(run: Run) -> Message:
    return Message(
        message_id=f"{run.run_id}-{run.attempt}",
        session_id=run.session_id,
        run_id=run.run_id,
        timestamp=0.0,
        role="system",
        void=True,
    )
