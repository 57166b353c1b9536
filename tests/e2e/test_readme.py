"""Every command in README, run as it stands there against a `make run` of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.e2e.stack import eventually

from tailrace.child import free_port
from tailrace.devserver import DevServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [body for kind, body in BLOCKS if kind == "sh"]
SHOWN = [body for kind, body in BLOCKS if kind == "text"]
MONGOSH = [body for kind, body in BLOCKS if kind == "js"]


class Running:
    """README's own server, and how its commands read with this one's addresses."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self.mongo = urlsplit(DevServer.of(data_dir).mongodb_url).netloc

    def run(self, script: str) -> str:
        bin_dir = Path(sys.executable).parent
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        script = script.replace(".venv/bin", str(bin_dir)).replace(
            "--data-dir .tailrace", f"--data-dir {self.data_dir}"
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """What `make run` starts, with `ARGS` as README passes them."""
    data_dir = tmp_path_factory.mktemp("readme") / "data"
    port = free_port()
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("TAILRACE_", "MAKE"))
    }
    log = data_dir.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "-s", "run", f"ARGS=--port {port} --data-dir {data_dir}"],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return f"Tailrace is ready: http://127.0.0.1:{port}/" in log.read_text()

        eventually(ready, 180)
        yield Running(data_dir, port)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def _needed(tool: str, path: str | None) -> str:
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
    return path


def _events(text: str) -> list[str]:
    return re.findall(r"^(?:id|event): .*$", text, re.MULTILINE)


def test_the_two_commands_are_make_targets() -> None:
    targets = re.findall(r"^make (\w+)", SHELL[0], re.MULTILINE)
    assert targets == ["run", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_make_run_installs_what_its_options_need() -> None:
    assert "make run ARGS=--dashboard" in README
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^\.venv/\.run:.*\n.*\n.*-e '\.\[(.*)\]'$", makefile, re.MULTILINE)
    assert "dashboard" in extras.split(",")


def test_curl_shows_what_readme_shows(running: Running) -> None:
    _needed("curl", shutil.which("curl"))
    token = SHELL[1].splitlines()[0] + "\n"
    asked, continued = running.run(SHELL[1]), running.run(token + SHELL[2])
    for shown, printed in ((SHOWN[0], asked), (SHOWN[1], continued)):
        lines = iter(_events(printed))
        assert all(line in lines for line in _events(shown)), f"not in this order:\n{shown}\n{printed}"
    assert '"output":"42"' in asked
    assert _events(continued) == _events(SHOWN[1])


def test_the_terminal_commands_print_the_answer(running: Running) -> None:
    printed = running.run(SHELL[3])
    assert "Asia/Tokyo" in printed
    assert "finish" in printed


def test_the_mongosh_queries_find_something(running: Running) -> None:
    local = ROOT / ".venv/mongosh/node_modules/.bin/mongosh"
    mongosh = _needed("mongosh", str(local) if local.exists() else shutil.which("mongosh"))
    queries = [part for part in re.split(r"^//.*$", MONGOSH[0], flags=re.MULTILINE) if part.strip()]
    script = ";".join(f"print(JSON.stringify({query.strip()}.toArray()))" for query in queries)
    done = subprocess.run(
        [mongosh, "--quiet", f"mongodb://{running.mongo}/tailrace", "--eval", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    running_now, by_type, failed = done.stdout.strip().splitlines()[-3:]
    assert (running_now, failed) == ("[]", "[]")
    assert '"finish"' in by_type
