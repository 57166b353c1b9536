"""A message: one complete turn of a conversation, and the sessions' messages in MongoDB."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from tailrace.carry import MAX_MESSAGE_BYTES, carry_data
from tailrace.documents import from_document, to_document
from tailrace.mongo import Database, start_session
from tailrace.runs import Run

__all__ = ["Message", "Messages", "Role", "prompt_id", "prompt_of"]

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
    position: int = 0  # 1, 2, 3 … within the session, void ones included; 0 where there was none yet
    void: bool = False  # a lost attempt's, which the next one tells again: nobody is shown it
    trace_id: str | None = None  # the Langfuse trace of its run
    observation_id: str | None = None  # the Langfuse span it came from

    def told(self) -> dict[str, Any]:
        """The data of the `message_complete` that tells it."""
        given = ("content_parts", "tool_calls", "tool_call_id", "name", "usage")
        there = {name: value for name in given if (value := getattr(self, name))}
        return {"role": self.role, "content": self.content, **there, "status": self.status}


def prompt_id(run: Run) -> str:
    """The id of the message that asks what the run answers: the same in every attempt."""
    return f"{run.run_id}-0"


def prompt_of(run: Run) -> Message:
    """What the run was asked, as a message that MongoDB takes, without its time and place."""
    asked = carry_data({"content": run.prompt, "content_parts": run.content_parts}, limit=MAX_MESSAGE_BYTES)
    return Message(
        message_id=prompt_id(run),
        session_id=run.session_id,
        run_id=run.run_id,
        timestamp=0.0,
        role="user",
        trace_id=run.trace_id,
        **asked,
    )


class Messages:
    """The `messages` collection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._collection = database["messages"]

    async def add(self, message: Message) -> bool:
        """Store `message`, durable on return; adding it again changes nothing.

        False when another message has its id or its position.
        """
        # One session: the look then sees whatever the insert met.
        async with start_session(self._database) as session:
            try:
                await self._collection.insert_one(to_document(message), session=session)
            except DuplicateKeyError:
                found = await self._collection.find_one({"_id": message.message_id}, session=session)
                standing = from_document(Message, found) if found else None
                return standing is not None and (standing.position, standing.timestamp) == (
                    message.position,
                    message.timestamp,
                )
        return True

    async def holds(self, message_id: str) -> bool:
        """Whether the message is there."""
        return await self._collection.find_one({"_id": message_id}, {"_id": 1}) is not None

    async def void(self, run: Run, *, before: int) -> None:
        """Void what stands of the run before that position, but its prompt: an attempt tells it again."""
        told = {
            "session_id": run.session_id,
            "run_id": run.run_id,
            "_id": {"$ne": prompt_id(run)},
            "position": {"$lt": before},
        }
        # The places stay taken.
        emptied = dict.fromkeys(("content", "content_parts", "tool_calls", "usage"), "")
        await self._collection.update_many(told, {"$set": {"void": True}, "$unset": emptied})

    async def newest(self, session_id: str) -> Message | None:
        """The message with the highest position, void or not."""
        query = {"session_id": session_id, "position": {"$gt": 0}}
        found = await self._collection.find_one(query, sort=[("position", DESCENDING)])
        if found is not None:
            return from_document(Message, found)
        # Only such as were stored before there were positions.
        return next(iter(await self.last(session_id, 1)), None)

    async def last(self, session_id: str, count: int, *, but: str | None = None) -> list[Message]:
        """The newest `count` messages of the session, oldest first; those of the run `but` left out."""
        query = {"session_id": session_id, "void": {"$ne": True}, "run_id": {"$ne": but}}
        cursor = self._collection.find(query).sort("timestamp", DESCENDING).limit(count)
        return [from_document(Message, found) for found in reversed(await cursor.to_list(None))]

    async def page(self, session_id: str, *, after: float, limit: int) -> list[Message]:
        """Up to `limit` messages whose `timestamp` is greater than `after`, oldest first."""
        query = {"session_id": session_id, "timestamp": {"$gt": after}, "void": {"$ne": True}}
        cursor = self._collection.find(query).sort("timestamp", ASCENDING).limit(limit)
        return [from_document(Message, found) for found in await cursor.to_list(None)]
