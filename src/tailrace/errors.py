"""Everything Tailrace raises on purpose.

TailraceError
├── SettingError          an environment variable has a value that is not allowed
├── Fenced                this writer's run belongs to another attempt, or has ended
├── RunConflict           the session already has an active run
├── IdempotencyConflict   the key was used for another request
├── NotYours              the session exists and belongs to somebody else
├── Unauthorized          the request carries no valid bearer token
├── CursorError           a place to start from that cannot be served
├── LimitReached          the user has, or has asked for, as much as one user may
├── EnqueueFailed         Redis did not take the job
├── DocumentDamaged       a stored document is not one that Tailrace stores
├── ArchiveUnavailable    the object store does not answer, or refuses
├── ArchiveDamaged        an object of the archive is missing, or not what was archived
├── EmbeddedUnavailable   no mongod or valkey-server can be found on this machine
└── MigrationNeeded       the database refuses an index or is not a replica set
"""

__all__ = [
    "ArchiveDamaged",
    "ArchiveUnavailable",
    "CursorError",
    "DocumentDamaged",
    "EmbeddedUnavailable",
    "EnqueueFailed",
    "Fenced",
    "IdempotencyConflict",
    "LimitReached",
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


class LimitReached(TailraceError):
    """The user has, or has asked for, as much as one user may."""

    def __init__(
        self, limit: str, message: str, *, allowed: int, retry_after: int, window: int | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit  # its name
        self.allowed = allowed
        self.retry_after = retry_after  # seconds, at least 1
        self.window = window  # seconds that `allowed` is for; None when it is for any moment


class EnqueueFailed(TailraceError):
    """Redis did not take the job."""


class DocumentDamaged(TailraceError):
    """A stored document is not one that Tailrace stores."""

    def __init__(self, message: str, *, session_id: str | None) -> None:
        super().__init__(message)
        self.session_id = session_id  # None when the document does not say


class ArchiveUnavailable(TailraceError):
    """The archive does not answer."""


class ArchiveDamaged(TailraceError):
    """A part of the archive is missing, or is not what was archived."""


class EmbeddedUnavailable(TailraceError):
    """No mongod or valkey-server can be found on this machine."""


class MigrationNeeded(TailraceError):
    """The database is not ready for Tailrace."""
