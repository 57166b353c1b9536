"""What teams write by hand: each stream subscribes to its session's channel in Redis. Nothing is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis
from sse_starlette import EventSourceResponse

PORT, _MONGODB_URL, _DATABASE, REDIS_URL = sys.argv[1:5]

app = FastAPI()
redis = Redis.from_url(REDIS_URL, max_connections=20_000)  # one for each stream: the default is 100


@app.get("/stream/{session_id}")
async def stream(session_id: str) -> EventSourceResponse:
    """The session's events from now on."""

    async def frames() -> AsyncIterator[dict[str, Any]]:
        async with redis.pubsub() as channel:
            await channel.subscribe(session_id)
            yield {"comment": "subscribed"}
            async for message in channel.listen():
                if message["type"] == "message":
                    event = json.loads(message["data"])
                    yield {"id": event["event_id"], "event": "delta", "data": json.dumps(event)}

    return EventSourceResponse(frames())


if __name__ == "__main__":
    uvicorn.run(app, port=int(PORT), log_level="warning", access_log=False, backlog=4096)
