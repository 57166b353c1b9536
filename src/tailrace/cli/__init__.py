"""The command `tailrace`. Each command imports what it needs: `--help` is fast, extras stay optional."""

from __future__ import annotations

from tailrace.cli import asking, keeping, serving, tools  # noqa: F401 - each adds its commands
from tailrace.cli.group import main

__all__ = ["main"]
