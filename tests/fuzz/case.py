"""A case of the bad-input list: what is sent, what answer is right, and whether the one that came is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from tests.fuzz.wire import Answer, Headers, exchange, request

from tailrace.api.problems import MEDIA_TYPE

__all__ = ["CANARY", "Case", "Target", "judge", "problem_in", "send"]

WITHIN = 30.0  # seconds for an answer; a machine under load takes a few
CANARY = "witness-secret"  # in every prompt of a witness, and so in every answer that it alone may see

_INSIDES = re.compile(
    rb'Traceback|File "|pymongo|litestar\.|msgspec\.|uvicorn|site-packages|mongodb://|redis://'
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the list is sent to, and as whom."""

    port: int
    token: str  # of the user who sends the list
    session: str  # one of that user's own, with a finished run
    other: str  # another of that user's own
    expired: str  # a third, whose first events are gone
    foreign: str  # a session of somebody else

    @property
    def agent(self) -> str:
        """The path of the user's own session."""
        return f"/api/apps/{self.session}/agent"

    @property
    def bearer(self) -> tuple[str, str]:
        """The user's header."""
        return ("Authorization", f"Bearer {self.token}")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One request, or what looks like one."""

    topic: str  # the bullet of the list
    name: str
    parts: tuple[bytes, ...]
    right: frozenset[int]  # statuses; 0 is a connection closed without a word
    holds: bytes = b""  # what the body must say
    half_close: bool = False  # the client says that nothing more comes

    @classmethod
    def of(
        cls,
        target: Target,
        topic: str,
        name: str,
        asked: str | bytes,
        *right: int,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        holds: bytes = b"",
        half_close: bool = False,
    ) -> Case:
        """A request as the list's own user, unless `headers` say who."""
        known = any(name.lower() == "authorization" for name, _ in headers)
        raw = request(method, asked, [*([] if known else [target.bearer]), *headers], body)
        return cls(
            topic=topic,
            name=name,
            parts=(raw,),
            right=frozenset(right),
            holds=holds,
            half_close=half_close,
        )


async def send(case: Case, port: int, *, within: float = WITHIN) -> Answer:
    """The answer to a case."""
    return await exchange(port, case.parts, half_close=case.half_close, within=within)


def judge(case: Case, answer: Answer) -> str | None:
    """What is wrong with the answer; None when it is right."""
    if answer.status not in case.right:
        return f"{answer.status} instead of {sorted(case.right)}: {answer.body[:300]!r}"
    if not answer.ended:
        return f"{answer.status}, but the connection stayed open"
    if case.holds not in answer.body:
        return f"no {case.holds!r} in {answer.body[:300]!r}"
    if CANARY.encode() in answer.body:
        return "shows what belongs to somebody else"
    return problem_in(answer) if answer.status >= 400 else None


def problem_in(answer: Answer) -> str | None:
    """What keeps a refusal from being problem details (RFC 9457) that tell nothing about the server."""
    if answer.headers.get("content-type") != MEDIA_TYPE:
        return f"{answer.status} as {answer.headers.get('content-type')}: {answer.body[:200]!r}"
    if _INSIDES.search(answer.body):
        return f"shows the inside of the server: {answer.body[:300]!r}"
    try:
        said: dict[str, Any] = answer.json
    except ValueError as error:
        return f"{error} in {answer.body[:200]!r}"
    if said.get("status") != answer.status:
        return f"the problem says {said.get('status')}, the status line {answer.status}"
    missing = [name for name in ("type", "title", "detail") if not isinstance(said.get(name, 0), str)]
    return f"no {missing} in {said}" if missing else None
