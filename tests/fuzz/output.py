"""The list's output: whatever an agent says, a frame is three lines, its name is ours, its data JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.fuzz.agents import NASTY
from tests.fuzz.case import Case, Target, judge, send
from tests.fuzz.wire import Answer

from tailrace.digest import Digest
from tailrace.events import CHANNELS, EVENT_TYPES

__all__ = ["broken_frames", "check_output"]

CONTROLS = {"stream.ready", "stream.reset", "stream.lagged", "stream.rotate", "stream.expired", "ping"}
SSE_LINE = re.compile(rb"\r\n|\r|\n")  # WHATWG HTML, section 9.2.5: any of them ends a line

_FRAME = re.compile(
    rb"(?:id: (?P<id>[A-Za-z0-9_-]{1,64}:[1-9][0-9]*)\n)?"
    rb"event: (?P<event>[a-z_.]+)\ndata: (?P<data>\{[^\r\n]*\})"
)
_ASIDE = re.compile(rb"retry: [0-9]+|:[^\r\n]*")


def broken_frames(body: bytes, session: str) -> Iterator[str]:
    """What is wrong with the bytes of a stream of `session`, from its first event on, in all its frames."""
    if b"\r" in body:
        yield "a CR"
    chains: dict[str, Digest] = {}
    last = 0
    for block in body.split(b"\n\n")[:-1]:
        if _ASIDE.fullmatch(block) or not block:
            continue
        match = _FRAME.fullmatch(block)
        if match is None:
            yield f"no frame: {block[:200]!r}"
            continue
        name, data = match["event"].decode(), json.loads(match["data"])
        if match["id"] is None:
            if name not in CONTROLS:
                yield f"{name} without an id"
            continue
        last += 1
        kind = data["event_type"]
        if kind not in EVENT_TYPES or CHANNELS[kind] != name:
            yield f"{kind} as {name}"
        where = (match["id"].decode(), data["event_id"], data["seq"], data["session_id"])
        if where != (f"{session}:{last}", f"{session}:{last}", last, session):
            yield f"{where} at {last} of {session}"
        chain = chains.setdefault(data["run_id"], Digest())
        if kind != "finish":
            chain.update(match["data"])
        elif data["digest"] != chain.hexdigest():
            yield f"the digest of {data['run_id']} at {last}"


async def check_output(target: Target, session: str) -> list[str]:
    """Let the nasty agent speak in `session`, and read it in every way there is; what is wrong with it."""
    path = f"/api/apps/{session}/agent"
    body = json.dumps({"prompt": "".join(NASTY), "agent": "nasty"}).encode()
    json_type = [("Content-Type", "application/json")]
    said = {
        "generate": Case.of(
            target, "output", "generate", f"{path}/generate", 200, method="POST", headers=json_type, body=body
        ),
        "replay": Case.of(target, "output", "replay", f"{path}/stream-continue?follow=none", 200),
        "events": Case.of(target, "output", "events", f"{path}/events?limit=1000", 200),
        "messages": Case.of(target, "output", "messages", f"{path}/messages", 200),
        "runs": Case.of(target, "output", "runs", f"{path}/runs", 200),
        "apps": Case.of(target, "output", "apps", "/api/apps?limit=1000", 200),
    }
    answers = {name: await send(case, target.port) for name, case in said.items()}
    wrong = [f"{name}: {why}" for name, case in said.items() if (why := judge(case, answers[name]))]
    for name in ("generate", "replay"):
        wrong += [f"{name}: {why}" for why in broken_frames(answers[name].body, session)]
    return wrong or _carried(answers)


def _carried(answers: dict[str, Answer]) -> list[str]:
    """What did not come through unharmed."""
    wrong = []
    events = answers["events"].json["events"]
    text = "".join(event["delta"] for event in events if event["event_type"] == "message_delta")
    if text != "".join(NASTY):
        wrong.append(f"the deltas say {text!r}")
    kinds = [event["event_type"] for event in events]
    if kinds.count("finish") != 1 or kinds[-3:] != ["run_error", "agent_end", "finish"]:
        wrong.append(f"the run ends with {kinds[-3:]}")
    for needed in ("tool_start", "tool_end", "custom", "progress", "file_change"):
        if needed not in kinds:
            wrong.append(f"no {needed}")
    names = {event.get("name") for event in events if event["event_type"] == "tool_start"}
    if not set(NASTY) <= names:
        wrong.append(f"tools named {sorted(set(NASTY) - names)} are missing")
    for name in ("events", "messages", "runs", "apps"):
        if not answers[name].headers["content-type"].startswith("application/json"):
            wrong.append(f"{name} as {answers[name].headers['content-type']}")
    return wrong
