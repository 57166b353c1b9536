"""Everything Tailrace raises on purpose.

TailraceError
├── SettingError          an environment variable has a value that is not allowed
├── Fenced                this writer's run belongs to another attempt, or has ended
├── RunConflict           the session already has an active run
├── IdempotencyConflict   the key was used for another request
├── NotYours              the session exists and belongs to somebody else
├── CursorError           a place to start from that cannot be served
├── EnqueueFailed         Redis did not take the job
├── EmbeddedUnavailable   no mongod or valkey-server can be found on this machine
└── MigrationNeeded       the database refuses an index or is not a replica set
"""

__all__ = [
    "CursorError",
    "EmbeddedUnavailable",
    "EnqueueFailed",
    "Fenced",
    "IdempotencyConflict",
    "MigrationNeeded",
    "NotYours",
    "RunConflict",
    "SettingError",
    "TailraceError",
    "Unauthorized",
]


class TailraceError(Exception):
    """Something went wrong in Tailrace."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class SettingError(TailraceError):
    """A setting has a value that is not allowed."""


class Fenced(TailraceError):
    """The run belongs to another attempt or has ended; nothing more may be written for it here."""


class RunConflict(TailraceError):
    """The session already has an active run."""

    def __init__(self, run_id: str | None = None) -> None:
        super().__init__()
        self.run_id = run_id


class IdempotencyConflict(TailraceError):
    """The idempotency key was used for another request in this session."""


class NotYours(TailraceError):
    """The session belongs to another user."""


class Unauthorized(TailraceError):
    """The request carries no valid bearer token."""


class CursorError(TailraceError):
    """The cursor is not a place in this session's log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EnqueueFailed(TailraceError):
    """Redis did not take the job."""


class EmbeddedUnavailable(TailraceError):
    """No mongod or valkey-server can be found on this machine."""


class MigrationNeeded(TailraceError):
    """The database is not ready for Tailrace."""
