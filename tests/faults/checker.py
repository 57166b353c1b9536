"""What must be true of a session's log, whatever was done to the processes that wrote and read it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from tests.faults.hostile import MARK, missing
from tests.faults.session import Session
from tests.faults.topology import http_client

from tailrace.client.sse import Parser
from tailrace.digest import Digest
from tailrace.events import Event
from tailrace.mongo import Database

__all__ = ["check"]


async def check(session: Session, database: Database) -> None:
    """Note every violation in `session`; nothing may be broken, and nothing running, any more."""
    events = [msgspec.json.decode(session.frames[seq]) for seq in sorted(session.frames)]
    if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
        session.blame("hole", f"the readers together saw {len(events)} events, up to {max(session.frames)}")
    for reader in session.readers:
        if reader.last != len(events):
            session.blame("all", f"{reader.name} ended at {reader.last} of {len(events)}", reader.last)
    await _check_stored(session, database)
    events = [msgspec.json.decode(session.frames[seq]) for seq in sorted(session.frames)]
    by_run: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_run.setdefault(event["run_id"], []).append(event)
    for run_id in session.accepted.keys() - by_run.keys():
        session.blame("accepted", f"run {run_id} was accepted and has no event")
    for run_id, found in by_run.items():
        _check_run(session, run_id, found)
    await _check_documents(session, database, by_run)
    await _check_messages(session, database, by_run)
    for n in range(2):
        await _check_replay(session, n)


def _check_run(session: Session, run_id: str, events: list[dict[str, Any]]) -> None:
    if run_id not in session.accepted:
        session.blame("unasked", f"run {run_id} was never accepted", events[0]["seq"])
    if events[0]["event_type"] != "run_queued":
        session.blame("first", f"run {run_id} begins with {events[0]['event_type']}", events[0]["seq"])
    for event in events[1:]:
        if event["event_type"] == "run_queued":
            session.blame("first", f"run {run_id} is queued in its middle", event["seq"])
    finishes = [event for event in events if event["event_type"] == "finish"]
    if len(finishes) != 1:
        session.blame("finish", f"run {run_id} has {len(finishes)}", events[-1]["seq"])
    _check_attempts(session, run_id, events)
    _check_voids(session, run_id, events)
    if not finishes:
        return
    if events[-1] is not finishes[-1]:
        session.blame("finish", f"run {run_id}: {events[-1]['event_type']} after it", events[-1]["seq"])
    if finishes[0]["status"] != "success":
        errors = [event["message"] for event in events if event["event_type"] == "run_error"]
        session.blame("status", f"run {run_id} ended {finishes[0]['status']}: {errors}", finishes[0]["seq"])
    if finishes[0]["last_seq"] != finishes[0]["seq"]:
        session.blame("finish", f"run {run_id}: last_seq {finishes[0]['last_seq']}", finishes[0]["seq"])
    _check_digest(session, run_id, events, finishes[0])
    _check_text(session, run_id, events)
    if session.agents.get(run_id) == "torture":
        _check_hostile(session, run_id, events)


def _check_attempts(session: Session, run_id: str, events: list[dict[str, Any]]) -> None:
    opening = ("attempt_superseded", "run_error", "agent_end")  # the last two: recovery writes its end
    for before, event in pairwise(events):
        if event["attempt"] < before["attempt"]:
            why = f"run {run_id}: attempt {event['attempt']} writes after attempt {before['attempt']}"
            session.blame("fence", why, event["seq"])
        if event["attempt"] > before["attempt"] and event["event_type"] not in opening:
            why = f"run {run_id}: attempt {event['attempt']} begins with {event['event_type']}"
            session.blame("superseded", why, event["seq"])


def _check_digest(
    session: Session, run_id: str, events: list[dict[str, Any]], finish: dict[str, Any]
) -> None:
    digest = Digest()
    for event in events:
        if event["event_type"] != "finish":
            digest.update(session.frames[event["seq"]])
    if finish.get("digest") != digest.hexdigest():
        session.blame("digest", f"run {run_id}", finish["seq"])


def _counted(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A run's events that no later attempt voids."""
    begins = [nth for nth, event in enumerate(events) if event["event_type"] == "attempt_superseded"]
    return events[begins[-1] :] if begins else events


def _check_text(session: Session, run_id: str, events: list[dict[str, Any]]) -> None:
    """The deltas of what counts make the messages."""
    counted = _counted(events)
    texts: dict[str, str] = {}
    told: dict[int, tuple[str, str]] = {}
    for event in counted:
        message = str(event.get("message_id"))
        if event["event_type"] == "message_delta":
            if event["offset"] != len(texts.get(message, "")):
                session.blame("offset", f"{event['offset']} in run {run_id}", event["seq"])
            texts[message] = texts.get(message, "") + event["delta"]
        elif event["event_type"] == "message_complete" and event["role"] == "assistant":
            told[event["seq"]] = (texts.get(message, ""), event["content"])
    for seq, (deltas, content) in told.items():
        if deltas != content:
            session.blame("text", f"run {run_id}: the deltas differ from the message", seq)


def _check_hostile(session: Session, run_id: str, events: list[dict[str, Any]]) -> None:
    """What is hard to store harms nothing: it is shown, as it was where that is possible."""
    values = [event["value"] for event in _counted(events) if event["event_type"] == "custom"]
    wrong = missing([value for value in values if isinstance(value, dict) and MARK in value])
    if wrong:
        session.blame("hostile", f"run {run_id}: missing or changed: {wrong}", events[-1]["seq"])


def _check_voids(session: Session, run_id: str, events: list[dict[str, Any]]) -> None:
    """`attempt_superseded` voids the run's events so far, but its `run_queued`.

    Events of other runs may stand between them: a run that waits is queued while another one writes.
    """
    for event in events:
        if event["event_type"] == "attempt_superseded":
            span = (event["from_seq"], event["to_seq"])
            if span != (events[0]["seq"] + 1, event["seq"] - 1):
                session.blame(
                    "voids", f"run {run_id}, which begins at {events[0]['seq']}: {span}", event["seq"]
                )


async def _check_stored(session: Session, database: Database) -> None:
    """The log is what was seen. What stands there unseen, behind the last finish, is looked at as well."""
    cursor = database["events"].find({"session_id": session.session_id}, {"expires_at": 0}).sort("seq", 1)
    stored = {found["seq"]: Event.from_document(found).to_json() for found in await cursor.to_list(None)}
    if stored.keys() != session.frames.keys():
        missing = sorted(session.frames.keys() - stored.keys())[:10]
        unseen = sorted(stored.keys() - session.frames.keys())[:10]
        session.blame("stored", f"seen but not stored: {missing}; stored but not seen: {unseen}")
    for seq in stored.keys() & session.frames.keys():
        if stored[seq] != session.frames[seq]:
            session.blame("stored", f"{stored[seq]!r} was shown as {session.frames[seq]!r}", seq)
    for seq in stored.keys() - session.frames.keys():
        session.frames[seq] = stored[seq]


async def _check_documents(
    session: Session, database: Database, by_run: dict[str, list[dict[str, Any]]]
) -> None:
    runs = {run["_id"]: run async for run in database["runs"].find({"session_id": session.session_id})}
    for run_id, events in by_run.items():
        run = runs.pop(run_id, None)
        if run is None:
            session.blame("document", f"run {run_id} has none", events[0]["seq"])
        elif run.get("active") or run.get("last_seq") != events[-1]["seq"]:
            state = {name: run.get(name) for name in ("state", "active", "last_seq", "attempt")}
            session.blame("document", f"run {run_id}: {state}", events[-1]["seq"])
        elif run.get("first_seq") != events[0]["seq"]:
            why = f"run {run_id}: first_seq {run.get('first_seq')}, not {events[0]['seq']}"
            session.blame("first_seq", why, events[0]["seq"])
    for run_id, run in runs.items():
        session.blame("document", f"run {run_id} ({run['state']}) has no events")


async def _check_messages(
    session: Session, database: Database, by_run: dict[str, list[dict[str, Any]]]
) -> None:
    """The stored messages are those of the events that count: a lost attempt left none."""
    for run_id, events in by_run.items():
        told = {
            event["message_id"]: event["content"]
            for event in _counted(events)
            if event["event_type"] == "message_complete"
        }
        kept_of = {"session_id": session.session_id, "run_id": run_id, "void": {"$ne": True}}
        cursor = database["messages"].find(kept_of)
        kept = {found["_id"]: found.get("content", "") for found in await cursor.to_list(None)}
        if kept != told:
            only = {
                name: sorted(a.keys() - b.keys())
                for name, a, b in (("kept", kept, told), ("told", told, kept))
            }
            session.blame("messages", f"run {run_id}: {only}", events[-1]["seq"])


async def _check_replay(session: Session, api: int) -> None:
    headers = {"Authorization": f"Bearer {session.topology.token}"}
    url = f"{session.topology.url(api)}{session.path}/stream-continue"
    async with http_client(timeout=30) as client:
        answer = await client.get(url, headers=headers, params={"follow": "none"})
    blocks = [block for block in Parser().feed(answer.content) if block.id is not None]
    replay = [(int((block.id or "").rpartition(":")[2]), block.data.encode()) for block in blocks]
    if replay != sorted(session.frames.items()):
        found = f"{len(replay)} of {len(session.frames)} events"
        said = f"{answer.status_code} {answer.text[:300]!r}"
        session.blame("replay", f"of api{api} differs: {found}; it answered {said}")
