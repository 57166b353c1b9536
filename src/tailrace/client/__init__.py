"""The Python client: start runs, follow sessions, miss nothing. Needs only httpx and msgspec."""

from tailrace.client.client import Client
from tailrace.client.errors import (
    BadRequest,
    BadStream,
    ClientError,
    Conflict,
    DigestMismatch,
    Gone,
    NotFound,
    Problem,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tailrace.client.frame import Frame

__all__ = [
    "BadRequest",
    "BadStream",
    "Client",
    "ClientError",
    "Conflict",
    "DigestMismatch",
    "Frame",
    "Gone",
    "NotFound",
    "Problem",
    "ServerError",
    "TooManyRequests",
    "Unauthorized",
    "Unreachable",
]
