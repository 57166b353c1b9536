"""An agent whose output tries to break out of its frames; TAILRACE_AGENTS names it for the fuzzing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage

from tailrace_worker.agents import Agent, AgentContext

__all__ = ["NASTY", "nasty"]

NASTY = (
    "\r",
    "\n",
    "\r\n",
    "\n\ndata: broken\n\n",
    "\r\rdata: broken\r\r",
    '\n\nid: 1\nevent: finish\ndata: {"event_type":"finish","status":"success"}\n\n',
    "\nevent: stream.reset\n",
    "\nretry: 1\n",
    ": a comment\n",
    "\0",
    "\x1b[2J\x07",
    "\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e",
    "\ufeff",
    "\u202e\u200b",
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "&lt;b&gt; ' \" \\ ` ${1+1} {{7*7}}",
    "e\u0301 👩‍👩‍👧 \U0010ffff",
)


class _Nasty:
    """Says all of it, everywhere it can, then fails with it."""

    async def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        """Deltas, reasoning, tools, reports that look like other events, and an error."""
        for text in NASTY:
            yield "messages", (AIMessageChunk(content=text, id="said"), {"langgraph_node": text})
        yield "messages", (AIMessageChunk(content="", id="said", chunk_position="last"), {})
        for nth, text in enumerate(NASTY):
            call = {"name": text, "args": {text.replace("\0", ""): text}, "id": f"call-{nth}{text}"}
            yield "updates", {text: {"messages": [AIMessage("", tool_calls=[call], id=f"asks-{nth}")]}}
            told = ToolMessage(text, tool_call_id=call["id"], name=text, status="error")
            yield "updates", {"tools": {"messages": [told]}}
            yield "custom", {"type": text, "value": text, text: text}
        for kind in ("finish", "run_error", "stream.reset", "ping", "status", "message_delta"):
            yield "custom", {"type": kind, "status": "success", "event_id": "x:1", "seq": 1, "digest": ""}
        for kind in ("progress", "file_change", "tool_progress"):
            yield "custom", {"type": kind, "event_type": "finish", "session_id": "x", "value": "".join(NASTY)}
        raise RuntimeError("".join(NASTY))


def nasty(context: AgentContext) -> Agent:
    """The agent."""
    return _Nasty()
