"""A change stream per connection: the first thing that MongoDB's own examples suggest."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pymongo import AsyncMongoClient

PORT, MONGODB_URL, DATABASE, _REDIS_URL = sys.argv[1:5]

app = FastAPI()
# The default of 100 connections would starve all but the first 100 streams.
client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(MONGODB_URL, maxPoolSize=None)
events = client[DATABASE]["events"]


def _frame(document: dict[str, Any]) -> str:
    data = json.dumps(document, default=str)
    return f"id: {document['_id']}\nevent: delta\ndata: {data}\n\n"


@app.get("/stream/{session_id}")
async def stream(session_id: str) -> StreamingResponse:
    """The session's events from now on."""

    async def frames() -> AsyncIterator[str]:
        chosen = {"operationType": "insert", "fullDocument.session_id": session_id}
        async with await events.watch([{"$match": chosen}]) as changes:
            yield ":\n\n"
            async for change in changes:
                yield _frame(change["fullDocument"])

    return StreamingResponse(frames(), media_type="text/event-stream")


@app.get("/replay/{session_id}")
async def replay(session_id: str) -> StreamingResponse:
    """The session's events until now."""

    async def frames() -> AsyncIterator[str]:
        async for document in events.find({"session_id": session_id}).sort("seq", 1):
            yield _frame(document)

    return StreamingResponse(frames(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(PORT), log_level="warning", access_log=False, backlog=4096)
