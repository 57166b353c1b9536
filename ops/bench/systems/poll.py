"""The design that Tailrace replaces: each stream asks MongoDB every 500 ms for what is newer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from motor.motor_asyncio import AsyncIOMotorClient

POLL_SECONDS = 0.5
PORT, MONGODB_URL, DATABASE, _REDIS_URL = sys.argv[1:5]

app = FastAPI()
events: Any = AsyncIOMotorClient(MONGODB_URL)[DATABASE]["events"]


def _newer(session_id: str, timestamp: float) -> Any:
    return events.find({"session_id": session_id, "timestamp": {"$gt": timestamp}}).sort("timestamp", 1)


def _frame(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, default=str)}\n\n"


@app.get("/stream/{session_id}")
async def stream(session_id: str) -> StreamingResponse:
    """The session's events, for ever."""

    async def frames() -> AsyncIterator[str]:
        yield ":\n\n"
        last = 0.0
        while True:
            async for document in _newer(session_id, last):
                last = document["timestamp"]
                yield _frame(document)
            await asyncio.sleep(POLL_SECONDS)

    return StreamingResponse(frames(), media_type="text/event-stream")


@app.get("/replay/{session_id}")
async def replay(session_id: str) -> StreamingResponse:
    """The session's events until now."""

    async def frames() -> AsyncIterator[str]:
        async for document in _newer(session_id, 0.0):
            yield _frame(document)

    return StreamingResponse(frames(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(PORT), log_level="warning", access_log=False, backlog=4096)
