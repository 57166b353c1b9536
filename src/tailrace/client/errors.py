"""What the client raises.

ClientError
├── Unreachable           no server answered for as long as the client's patience lasts
├── BadStream             the server sent what is no event stream, or left out an event again and again
├── DigestMismatch        a run's frames are not those that its `finish` tells the digest of
└── Problem               the server refused the request; carries its problem document
    ├── BadRequest        400, 413, 415, 422
    ├── Unauthorized      401, 403
    ├── NotFound          404: no such session, or somebody else's
    ├── Conflict          409: the session already has an active run
    ├── Gone              410: the cursor has expired
    ├── TooManyRequests   429
    └── ServerError       5xx
"""

from __future__ import annotations

import httpx
import msgspec

__all__ = [
    "BadRequest",
    "BadStream",
    "ClientError",
    "Conflict",
    "DigestMismatch",
    "Gone",
    "NotFound",
    "Problem",
    "ServerError",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
    "problem_of",
]

MAX_PROBLEM_BYTES = 64 * 1024  # of an error's body; a proxy's error page can be any size


class ClientError(Exception):
    """The client could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class Unreachable(ClientError):
    """No server answered."""


class BadStream(ClientError):
    """The server sent something that is not a stream of events."""


class DigestMismatch(ClientError):
    """What was read of a run is not what its worker wrote: an event is missing, doubled or changed."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"The digest of run {run_id} does not match: an event is missing, doubled or changed."
        )
        self.run_id = run_id


class Problem(ClientError):
    """The server refused the request."""

    def __init__(self, *, status: int, title: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after = retry_after  # seconds; what the server asks to wait, if it says so


class BadRequest(Problem):
    """The server does not accept the request as it is."""


class Unauthorized(Problem):
    """The token is missing, wrong or expired."""


class NotFound(Problem):
    """There is no such session, or it belongs to somebody else."""


class Conflict(Problem):
    """The session already has an active run."""


class Gone(Problem):
    """The place to start from has expired."""


class TooManyRequests(Problem):
    """The limit of streams or runs is reached."""


class ServerError(Problem):
    """The server could not answer."""


_BY_STATUS: dict[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: TooManyRequests,
}


async def problem_of(response: httpx.Response) -> Problem:
    """The error that `response`, a streamed one with an error status, stands for."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_PROBLEM_BYTES:
            break
    status = response.status_code
    try:
        told = msgspec.json.decode(bytes(body), type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):  # not ours: a proxy's page, say
        told = {}
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else Problem)
    return kind(
        status=status,
        title=str(told.get("title") or response.reason_phrase or f"HTTP {status}"),
        detail=str(told.get("detail") or ""),
        retry_after=_seconds(response.headers.get("Retry-After", "")),
    )


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
