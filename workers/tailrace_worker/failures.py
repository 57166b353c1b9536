"""What went wrong in a run, in words for the person who asked."""

from __future__ import annotations

import asyncio

from tailrace.ending import Failure
from tailrace.errors import TailraceError

__all__ = [
    "AgentUnavailable",
    "ModelUnavailable",
    "RunRefused",
    "UnknownAgent",
    "explain",
]

MAX_MESSAGE = 600  # characters

_UNREACHABLE = (
    "APIConnectionError",
    "ModelConnectionError",
    "ModelTimeoutError",
    "ConnectError",
    "ReadTimeout",
)


class RunRefused(TailraceError):
    """The run cannot begin."""

    code = "run_refused"


class UnknownAgent(RunRefused):
    """No agent has that name."""

    code = "unknown_agent"


class AgentUnavailable(RunRefused):
    """The agent's factory cannot be imported, or fails."""

    code = "agent_unavailable"


class ModelUnavailable(RunRefused):
    """The model's package or key is missing."""

    code = "model_unavailable"


def explain(error: BaseException) -> Failure:
    """The failure that `error` means, whatever library raised it; of a group, its first error."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, RunRefused):
        return Failure(code=error.code, message=_brief(str(error)))
    if isinstance(error, asyncio.CancelledError):
        return Failure(code="agent_error", message="The agent cancelled itself.")
    if isinstance(error, RecursionError):
        return _recursion(error)
    return _of_a_provider(error) or Failure(
        code="agent_error", message=_brief(f"The agent failed: {_named(error)}")
    )


def _recursion(error: RecursionError) -> Failure:
    if type(error).__name__ == "GraphRecursionError":  # LangGraph's, by name: it is slow to import
        return Failure(
            code="too_many_steps", message="The agent took more steps than it is allowed and was stopped."
        )
    return Failure(code="agent_error", message="The agent failed: its code recursed too deeply.")


def _of_a_provider(error: BaseException) -> Failure | None:
    """Providers' clients share no base class, but an HTTP status and names for a lost connection."""
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return Failure(
            code="model_unavailable",
            message=_brief(f"The model's provider refused the key ({status}). Check the API key: {error}"),
        )
    if isinstance(status, int):
        retryable = status in (408, 409, 429) or status >= 500
        code = "rate_limited" if status == 429 else "model_error"
        return Failure(
            code=code, message=_brief(f"The model answered {status}: {error}"), retryable=retryable
        )
    if any(kind.__name__ in _UNREACHABLE for kind in type(error).__mro__):
        message = _brief(f"The model cannot be reached: {error}")
        return Failure(code="model_unreachable", message=message, retryable=True)
    return None


def _named(error: BaseException) -> str:
    try:
        text = str(error).strip()
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _brief(text: str) -> str:
    text = text.encode(errors="replace").decode()  # half of a surrogate pair, which BSON does not hold
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"
