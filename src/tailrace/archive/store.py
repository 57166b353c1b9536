"""The object store: files, S3, or whatever else fsspec knows, asked in threads and for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeVar
from uuid import uuid4

from tailrace.archive.outage import Outage
from tailrace.errors import ArchiveUnavailable, SettingError
from tailrace.settings import Settings

__all__ = ["ObjectStore"]

T = TypeVar("T")

THREADS = 4  # of its own: a store that hangs must not take those that others wait for
ANSWER_SECONDS = 20.0  # for one object, which has a few megabytes at most
# botocore's own are a minute for each, and five tries.
_S3_CONFIG = {"connect_timeout": 3, "read_timeout": 8, "retries": {"max_attempts": 2}}


class ObjectStore:
    """Objects below one address. Credentials and endpoints are found by the store's own means."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")
        self._filesystem: tuple[Any, str] | None = None
        self._outage = Outage()

    @classmethod
    def of(cls, settings: Settings) -> ObjectStore | None:
        """The archive that the settings name, if they name one. Raises `SettingError` if it needs more."""
        if not settings.archive_url:
            return None
        needed = ["fsspec", *(["s3fs"] if settings.archive_url.startswith("s3:") else [])]
        if missing := [name for name in needed if find_spec(name) is None]:
            names = ", ".join(missing)
            raise SettingError(
                f"TAILRACE_ARCHIVE_URL needs {names}: pip install '.[archive]' in Tailrace's checkout."
            )
        return cls(settings.archive_url)

    async def write(self, key: str, content: bytes) -> None:
        """Put an object in place, whole or not at all, and read it back.

        Raises `ArchiveUnavailable`, as all of these do. The outage is in the log then: nobody else need tell.
        """
        await self._ask(lambda: self._write(key, content))

    async def read(self, key: str) -> bytes | None:
        """An object's content; None when there is none."""
        return await self._ask(lambda: self._read(key))

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        await self._ask(lambda: self._delete(key))

    async def delete_session(self, session_id: str) -> None:
        """Delete every object of the session."""
        await self._ask(lambda: self._delete(session_id))

    def close(self) -> None:
        """Let the threads go; one that hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await asyncio.get_running_loop().run_in_executor(self._pool, question)
        except Exception as error:  # every store raises its own
            away = ArchiveUnavailable(f"The archive: {type(error).__name__}: {error}"[:300])
            self._outage.failed(away)
            raise away from error
        self._outage.answered()
        return answer

    def _opened(self) -> tuple[Any, str]:
        if self._filesystem is None:
            from fsspec.core import url_to_fs

            given = {"config_kwargs": _S3_CONFIG} if self._url.startswith("s3:") else {}
            filesystem, root = url_to_fs(self._url, use_listings_cache=False, **given)
            self._filesystem = filesystem, root.rstrip("/")
        return self._filesystem

    @property
    def _local(self) -> bool:
        return self._url.startswith(("file:", "local:"))

    def _write(self, key: str, content: bytes) -> None:
        filesystem, root = self._opened()
        path = f"{root}/{key}"
        if self._local:
            # A file that is written in place is half a file for a moment; an object in a store never is.
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            beside = f"{path}.{uuid4().hex}"
            filesystem.pipe_file(beside, content)
            filesystem.mv(beside, path)
        else:
            filesystem.pipe_file(path, content)
        if filesystem.cat_file(path) != content:
            raise OSError(f"{key} is not what was written")

    def _read(self, key: str) -> bytes | None:
        filesystem, root = self._opened()
        try:
            found: bytes = filesystem.cat_file(f"{root}/{key}")
        except FileNotFoundError:
            return None
        return found

    def _delete(self, key: str) -> None:
        filesystem, root = self._opened()
        with suppress(FileNotFoundError):
            filesystem.rm(f"{root}/{key}", recursive=True)
