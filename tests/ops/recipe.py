"""One of ops/mongosh, as it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Recipe"]


class Recipe:
    """A mongosh that runs one file, and what it has printed so far."""

    def __init__(self, argv: list[str], environ: Mapping[str, str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(argv, env=environ, stdout=file, stderr=subprocess.STDOUT)

    @property
    def printed(self) -> str:
        """All of it."""
        return self._output.read_text(encoding="utf-8")

    def finished(self) -> str:
        """What it printed, when it has ended well."""
        code = self.process.wait(timeout=180)
        assert code == 0, self.printed
        return self.printed

    def end(self) -> None:
        """End it, as Ctrl-C would."""
        self.process.kill()
        self.process.wait()
