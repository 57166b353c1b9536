"""Tailrace in a terminal: `chat` streams an answer, `cancel` ends it, `tail` and `verify` read the log."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Coroutine
from typing import Any

import msgspec

from tailrace.client.audit import Audit
from tailrace.client.client import Client
from tailrace.client.cursor import Follow
from tailrace.client.errors import ClientError, NotFound, Unauthorized, Unreachable
from tailrace.client.frame import Frame
from tailrace.client.interrupt import cancelling_on_interrupt
from tailrace.client.lines import answer_of, harmless, line_of, report_of, tool_line_of
from tailrace.client.since import since_of

__all__ = ["cancel", "chat", "tail", "verify"]

PATIENCE_SECONDS = 60.0  # somebody is waiting at the keyboard
REPLAY_PATIENCE_SECONDS = 10.0  # with a server that is away
STALL_SECONDS = 15.0  # without a frame, though the server is there: it waits for an event that is missing
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def chat(
    *, url: str, token: str, session: str | None, prompt: str, agent: str | None = None, as_json: bool = False
) -> int:
    """Run `prompt` in `session` (a new one if None) and stream the answer to standard output.

    Tool calls and the session's id go to standard error. The first Ctrl-C cancels the run and waits for its
    end. Returns the exit code: 0 when the run succeeded, 1 when it did not or the server refused, 130 when
    Ctrl-C ended this before the run.
    """
    name = session or uuid.uuid4().hex
    return _run(_chat(Client(url, token, patience=PATIENCE_SECONDS), name, prompt, agent, as_json))


def tail(
    *,
    url: str,
    token: str,
    session: str,
    since: str | float | None = None,
    follow: Follow = "session",
    as_json: bool = False,
) -> int:
    """Print what happened in `session`, a line an event, and what happens next as far as `follow` says.

    `since` is Unix seconds, an ISO time, or an age such as "10m" or "2h". Returns the exit code as `chat`; 2
    when `since` is none of them.
    """
    try:
        start = since_of(since, now=time.time())
    except ValueError as error:
        _complain(str(error))
        return 2
    client = Client(url, token, patience=PATIENCE_SECONDS)
    return _run(_tail(client, session, start, follow, as_json))


def cancel(*, url: str, token: str, session: str, as_json: bool = False) -> int:
    """Ask for the end of the session's active run, and print which it is.

    Returns the exit code: 0 also when nothing runs, 1 when the server refused.
    """
    return _run(_cancel(Client(url, token, patience=PATIENCE_SECONDS), session, as_json))


def verify(*, url: str, token: str, session: str, as_json: bool = False) -> int:
    """Replay `session` and print, for each run, whether all its events are there and as they were written.

    Returns the exit code: 0 when nothing is wrong, 1 when something is or the server refused. What is still
    running, or has lost its beginning to the retention, is named and is not wrong.
    """
    client = Client(url, token, patience=REPLAY_PATIENCE_SECONDS, check_digests=False)
    return _run(_verify(client, session, as_json))


async def _chat(client: Client, session: str, prompt: str, agent: str | None, as_json: bool) -> int:
    status, error, mid_line = "lost", "", False
    async with client, cancelling_on_interrupt(client, session) as arm:
        async for frame in client.generate(session, prompt, agent=agent):
            arm()  # not before: until here there is no run to cancel
            if frame.type == "finish":
                status = str(frame.data.get("status"))
            if frame.type == "run_error":
                error = str(frame.data.get("message"))
            if as_json:
                _print_json(frame)
            else:
                mid_line = _print_chat(frame, mid_line)
    if mid_line:
        print(flush=True)
    if status != "success":
        print(harmless(error) or f"The run ended with status {status}.", file=sys.stderr)
    if not as_json:
        _note(f'Go on with: tailrace chat --session {session} "…"')
    return 0 if status == "success" else 1


async def _tail(client: Client, session: str, start: float | None, follow: Follow, as_json: bool) -> int:
    async with client:
        async for frame in client.follow(session, since_timestamp=start, follow=follow):
            if as_json:
                _print_json(frame)
            elif frame.seq is not None or frame.event == "stream.reset":
                print(line_of(frame), flush=True)
    return 0


async def _cancel(client: Client, session: str, as_json: bool) -> int:
    async with client:
        run_id = await client.cancel(session)
    if as_json:
        print(msgspec.json.encode({"session_id": session, "run_id": run_id}).decode())
    else:
        print(f"Run {run_id} is being cancelled." if run_id else "Nothing runs in this session.")
    return 0


async def _verify(client: Client, session: str, as_json: bool) -> int:
    audit, answered = Audit(session), False
    async with client:
        try:
            async with asyncio.timeout(STALL_SECONDS) as stall:
                async for frame in client.follow(session, follow="none"):
                    answered = True
                    audit.take(frame)
                    stall.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS)
        except TimeoutError:
            # The audit knows where the log should end, once the server has said so.
            if not answered:
                raise Unreachable(f"No answer within {STALL_SECONDS:.0f} s: nothing was verified.") from None
    report = audit.report()
    print(msgspec.json.encode(report).decode() if as_json else report_of(report), flush=True)
    return 0 if report.verified else 1


def _print_chat(frame: Frame, mid_line: bool) -> bool:
    """Print what `frame` adds to the answer; whether the cursor now stands within a line."""
    text = answer_of(frame)
    if text:
        print(text, end="", flush=True)
        return not text.endswith("\n")
    line = tool_line_of(frame)
    if (line or frame.type == "message_complete") and mid_line:
        print(flush=True)
        mid_line = False
    if line:
        _note(line)
    return mid_line


def _print_json(frame: Frame) -> None:
    shown = frame.data if frame.seq is not None else {"event": frame.event, **frame.data}
    print(msgspec.json.encode(shown).decode(), flush=True)


def _note(text: str) -> None:
    dim = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"{_DIM}{text}{_PLAIN}" if dim else text, file=sys.stderr, flush=True)


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). What Python still flushes at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NotFound:
        _complain("There is no such session, or it is not this token's user's.")
    except Unauthorized as error:
        _complain(f"{error} Give another one by --token or TAILRACE_TOKEN.")
    except ClientError as error:
        _complain(str(error))
    return 1


def _complain(text: str) -> None:
    print(f"tailrace: {harmless(text)}", file=sys.stderr)
