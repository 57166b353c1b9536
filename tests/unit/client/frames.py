"""Frames as a server sends them, with the digest that a worker would have stamped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tailrace.client.frame import Frame, frame_of
from tailrace.client.sse import Block
from tailrace.digest import Digest

__all__ = ["control", "event", "run_of", "sse"]


def event(seq: int, run_id: str, event_type: str, **data: Any) -> Frame:
    """The event at `seq` of session `s`."""
    told = {"seq": seq, "run_id": run_id, "attempt": 1, "event_type": event_type, **data}
    return frame_of(Block(event=event_type, data=json.dumps(told, ensure_ascii=False), id=f"s:{seq}"))


def control(name: str, **data: Any) -> Frame:
    """A frame that is no event."""
    return frame_of(Block(event=name, data=json.dumps(data)))


def run_of(run_id: str, seqs: Iterable[int], **finish: Any) -> list[Frame]:
    """A run with its events at `seqs`, the last of them its finish."""
    first, *middle, last = seqs
    frames = [event(first, run_id, "run_queued", agent="default")]
    frames += [event(seq, run_id, "message_delta", delta=f"«{seq}» ") for seq in middle]
    digest = Digest()
    for frame in frames:
        digest.update(frame.raw.encode())
    told = {"status": "success", "last_seq": last, "digest": digest.hexdigest(), **finish}
    return [*frames, event(last, run_id, "finish", **told)]


def sse(frames: Iterable[Frame]) -> bytes:
    """`frames` as the bytes of a stream."""
    parts = [(f"id: {f.id}\n" if f.id else "") + f"event: {f.event}\ndata: {f.raw}\n\n" for f in frames]
    return "".join(parts).encode()
