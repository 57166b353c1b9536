"""Every example of the streaming guide, run as it stands there against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/sse_streaming_guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
SHELL = [body for kind, body in BLOCKS if kind == "sh"]
UI = ROOT / "src/tailrace/ui"


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=500.0)
    with Stack(settings) as stack:
        yield stack


def run(stack: Stack, argv: list[str], *, stdin: str = "") -> str:
    environ = {**os.environ, "URL": stack.url, "TOKEN": stack.token()}
    done = subprocess.run(
        argv, env=environ, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{stdin}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shell(stack: Stack, script: str) -> str:
    return run(stack, ["bash", "-euo", "pipefail", "-c", script])


def block(kind: str) -> str:
    """The guide's only example in that language."""
    (found,) = [str(body) for name, body in BLOCKS if name == kind]
    return found


def test_curl_asks_once_comes_back_and_reads_what_was_said(stack: Stack) -> None:
    ask, back, look = SHELL
    asked, again = shell(stack, ask), shell(stack, ask)
    ids = re.findall(r"^id: (.*)$", asked, re.MULTILINE)
    assert ids == [f"guide:{nth}" for nth in range(1, len(ids) + 1)]
    assert re.findall(r"^id: (.*)$", again, re.MULTILINE) == ids  # the same run
    assert asked.rstrip().rpartition("event: ")[2].startswith("finish")
    found = re.findall(r"^id: (.*)$", shell(stack, back), re.MULTILINE)
    assert found == [*ids[3:], *ids]  # after the third; and all, for all of it is new
    said = shell(stack, look)
    assert '"content":"What is 6 * 7?"' in said
    assert '"event_id":"guide:4"' in said


@pytest.mark.skipif(shutil.which("node") is None and not os.environ.get("CI"), reason="node is not installed")
def test_javascript_follows_a_run_and_needs_the_files_that_are_named(stack: Stack, tmp_path: Path) -> None:
    for name in ("tailrace.js", *re.findall(r"`(\w+\.js)`", GUIDE)):
        shutil.copy(UI / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "example.js").write_text(block("js"))
    (tmp_path / "main.js").write_text(
        "globalThis.URL_OF_TAILRACE = process.env.URL; globalThis.TOKEN = process.env.TOKEN;"
        'await import("./example.js");'
    )
    printed = run(stack, ["node", str(tmp_path / "main.js")])
    assert "success" in printed
    assert "Asia/Tokyo" in printed.splitlines()[-1]


def test_python_prints_the_answer_and_finds_nothing_more(stack: Stack) -> None:
    printed = run(stack, [sys.executable, "-"], stdin=block("python"))
    assert "391" in printed
    assert "finish" not in printed
