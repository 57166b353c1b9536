"""A message: one complete turn of a conversation, and the sessions' messages in MongoDB."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from tailrace.documents import from_document, to_document

__all__ = ["Message", "Messages", "Role"]

Role = Literal["user", "assistant", "tool", "system"]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One complete message; a cancelled or failed run leaves its partial message with that `status`."""

    message_id: str  # `_id` in MongoDB
    session_id: str
    run_id: str
    timestamp: float  # Unix seconds of its completion; strictly increasing within a session
    role: Role
    content: str = ""  # the text
    content_parts: list[dict[str, Any]] = msgspec.field(default_factory=list)  # multimodal content, if any
    tool_calls: list[dict[str, Any]] = msgspec.field(default_factory=list)  # assistant: `id`, `name`, `args`
    tool_call_id: str | None = None  # tool: the call it answers
    name: str | None = None  # tool: its name
    status: Literal["complete", "error", "cancelled"] = "complete"
    usage: dict[str, Any] | None = None  # tokens, as LangChain counts them
    parent_id: str | None = None  # the message before it
    trace_id: str | None = None


class Messages:
    """The `messages` collection."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._collection = database["messages"]

    async def add(self, message: Message) -> None:
        """Store `message`, durable on return. Adding it again changes nothing."""
        try:
            await self._collection.insert_one(to_document(message))
        except DuplicateKeyError:
            return

    async def forget(self, session_id: str, run_id: str) -> None:
        """Delete what a lost attempt of the run left: its next attempt tells it all again."""
        await self._collection.delete_many({"session_id": session_id, "run_id": run_id})

    async def last(self, session_id: str, count: int) -> list[Message]:
        """The newest `count` messages of the session, oldest first."""
        cursor = self._collection.find({"session_id": session_id}).sort("timestamp", DESCENDING).limit(count)
        return [from_document(Message, found) for found in reversed(await cursor.to_list(None))]

    async def page(self, session_id: str, *, after: float, limit: int) -> list[Message]:
        """Up to `limit` messages whose `timestamp` is greater than `after`, oldest first."""
        query = {"session_id": session_id, "timestamp": {"$gt": after}}
        cursor = self._collection.find(query).sort("timestamp", ASCENDING).limit(limit)
        return [from_document(Message, found) for found in await cursor.to_list(None)]
