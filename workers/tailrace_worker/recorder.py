"""The recorder: writes down one run, its events and its messages, as it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain

from tailrace.events import Draft
from tailrace.message_writer import MessageWriter
from tailrace.messages import Message, prompt_id
from tailrace.runs import Run
from tailrace_worker.assistant import Output
from tailrace_worker.emitter import Emitter
from tailrace_worker.envelope import Envelope

__all__ = ["Recorder"]


class Recorder:
    """Keeps messages and emits events, in the order they are given."""

    def __init__(
        self, emitter: Emitter, messages: MessageWriter, envelope: Envelope, *, ends: Callable[[], None]
    ) -> None:
        self._emitter = emitter
        self._messages = messages
        self._envelope = envelope
        self._ends = ends  # called when a cancellation came that is yet to be raised

    async def record(self, outputs: Iterable[Output]) -> None:
        """Keep the messages among `outputs` and emit the drafts; a tool's start is durable on return.

        A cancellation is raised when all of `outputs` is recorded: whoever makes them takes them for told.
        Raises `Fenced` when the run is no longer this attempt's.
        """
        remaining, tools = iter(outputs), False
        for output in remaining:
            if isinstance(output, Message):
                tools |= await self._whole(chain([output], remaining))
                break
            try:
                await self._emitter.emit(output)  # most often a delta, which is not worth a task
            except asyncio.CancelledError:  # the emitter has not taken it
                self._ends()
                await self._whole(chain([output], remaining))
                raise
            tools |= output.event_type == "tool_start"
        if tools:
            # The agent calls its tools when it is asked for more. What they do to the world should not happen
            # untold, and one that holds up the loop would hold back the event that tells of it.
            await self._emitter.flush()

    async def _whole(self, outputs: Iterable[Output]) -> bool:
        """As `_record`. A cancellation meanwhile, or several, is raised when all is recorded."""
        task = asyncio.create_task(self._record(outputs))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
                self._ends()
        tools = task.result()
        if cancelled is not None:
            raise cancelled
        return tools

    async def _record(self, outputs: Iterable[Output]) -> bool:
        """Keep and emit; whether a tool starts."""
        tools = False
        for output in outputs:
            if isinstance(output, Draft):
                await self._emitter.emit(output)
                tools |= output.event_type == "tool_start"
            else:
                await self._messages.add(output)
        return tools

    async def begin(self, run: Run, *, model: str) -> None:
        """Tell that the agent starts, and what it was asked; the former is durable on return."""
        await self._emitter.emit(self._envelope.draft("agent_start", {"agent": run.agent, "model": model}))
        prompt = self._prompt(run)
        await self._messages.begin(prompt)
        # Building an agent may take long, and holds up the loop: by then readers shall see that it starts.
        await self._emitter.flush()
        await self._emitter.emit(self._envelope.completed(prompt))

    def _prompt(self, run: Run) -> Message:
        return self._envelope.message(
            role="user", message_id=prompt_id(run), content=run.prompt, content_parts=run.content_parts
        )

    async def flush(self) -> None:
        """Return when everything recorded is durable; raises like `record`."""
        await self._emitter.flush()
