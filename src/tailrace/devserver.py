"""A dev server's directory: the lock that one `tailrace dev` holds, and how other commands reach it."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tailrace.errors import TailraceError
from tailrace.settings import Settings

__all__ = ["DEFAULT_DATA_DIR", "DEV_USER", "DevServer", "held"]

DEFAULT_DATA_DIR = ".tailrace"
DEV_USER = "dev"

_FILE = "server.json"
_LOCK = "lock"


class DevServer(msgspec.Struct, frozen=True, kw_only=True):
    """What `tailrace dev` keeps in its directory, readable by its owner only."""

    jwt_secret: str
    url: str = ""  # of the API; empty until it was ready once
    mongodb_url: str = ""
    redis_url: str = ""
    pid: int = 0  # of the supervisor

    @classmethod
    def load(cls, data_dir: Path) -> DevServer | None:
        """The dev server that used `data_dir` last; None where there was none."""
        try:
            return msgspec.json.decode((data_dir / _FILE).read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise TailraceError(
                f"{data_dir / _FILE} is not what `tailrace dev` wrote there: {error}"
            ) from error

    @classmethod
    def of(cls, data_dir: Path) -> DevServer:
        """The dev server of `data_dir`; raises `TailraceError` that says how to start one."""
        server = cls.load(data_dir)
        if server is None:
            raise TailraceError(
                f"No dev server has used {data_dir}. Start one with: tailrace dev --data-dir {data_dir}"
            )
        return server

    @classmethod
    def made(cls) -> DevServer:
        """A new one with a secret of its own."""
        return cls(jwt_secret=secrets.token_urlsafe(48))

    def save(self, data_dir: Path) -> None:
        """Replace what `data_dir` holds."""
        new = data_dir / f"{_FILE}.new"
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
        new.replace(data_dir / _FILE)

    def apply(self, settings: Settings) -> Settings:
        """`settings` with this server's secret and addresses."""
        return msgspec.structs.replace(
            settings,
            jwt_secret=self.jwt_secret,
            mongodb_url=self.mongodb_url or settings.mongodb_url,
            redis_url=self.redis_url or settings.redis_url,
        )


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Make `data_dir` and hold its lock, which ends with this process however it ends.

    Raises `TailraceError` when another `tailrace dev` holds it or it cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / _LOCK).open("a")
    except OSError as error:
        raise TailraceError(f"{data_dir} cannot be used as the data directory: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = DevServer.load(data_dir)
            where = f" (pid {other.pid}, {other.url or 'starting'})" if other else ""
            raise TailraceError(
                f"Another `tailrace dev`{where} uses {data_dir}. End it first, or choose another --data-dir."
            ) from error
        yield
