"""The recorder: writes down one run, its events and its messages, as it goes on."""

from __future__ import annotations

from collections.abc import Iterable

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

    def __init__(self, emitter: Emitter, messages: MessageWriter, envelope: Envelope) -> None:
        self._emitter = emitter
        self._messages = messages
        self._envelope = envelope

    async def record(self, outputs: Iterable[Output]) -> None:
        """Keep the messages among `outputs` and emit the drafts; a tool's start is durable on return.

        Raises `Fenced` when the run is no longer this attempt's.
        """
        tools = False
        for output in outputs:
            if isinstance(output, Draft):
                await self._emitter.emit(output)
                tools = tools or output.event_type == "tool_start"
            else:
                await self._messages.add(output)
        if tools:
            # The agent calls its tools when it is asked for more. What they do to the world should not happen
            # untold, and one that holds up the loop would hold back the event that tells of it.
            await self._emitter.flush()

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
