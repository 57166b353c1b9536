"""A real S3 API: moto's server in a process of its own, which forgets everything at its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.e2e.stack import eventually

from tailrace.child import Child, free_port

__all__ = ["BUCKET", "S3", "s3"]

BUCKET = "archive"


class S3:
    """The server, its bucket, and what a client's environment needs."""

    def __init__(self, child: Child, url: str) -> None:
        self.child = child
        self.url = url
        self.environ = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def listed(self) -> list[str]:
        """The bucket's objects."""
        listed = httpx.get(f"{self.url}/{BUCKET}?list-type=2", trust_env=False).text
        return [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]


@contextmanager
def s3(directory: Path) -> Iterator[S3]:
    """The server, with an empty bucket."""
    port = free_port()
    child = Child(
        "s3",
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(port)],
        log=directory / "s3.log",
        environ=dict(os.environ),
    )
    server = S3(child, f"http://127.0.0.1:{port}")
    child.start()
    try:
        eventually(lambda: _answers(server), timeout=60)
        httpx.put(f"{server.url}/{BUCKET}", trust_env=False, timeout=30).raise_for_status()
        yield server
    finally:
        child.stop()


def _answers(server: S3) -> bool:
    try:
        return httpx.get(server.url, trust_env=False, timeout=10).status_code < 500
    except httpx.TransportError:
        return False
