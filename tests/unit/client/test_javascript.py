"""The page's modules, tested by Node's own runner; skipped where there is no Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("module", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_javascript(module: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the page's modules are not tested alone")
    done = subprocess.run(
        [node, "--test", str(HERE / module)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
