"""The command line: help that teaches, one clear line for each mistake, a token and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result

from tailrace.cli import main
from tailrace.client import terminal
from tailrace.devserver import DevServer, held
from tailrace.errors import TailraceError
from tailrace.mongo import INDEXES
from tailrace.settings import Settings, variable

SECRET = "a-secret-of-the-tests-that-is-long-enough"
COMMANDS = {
    *("dev", "api", "worker", "init-db"),
    *("chat", "tail", "cancel", "verify"),
    *("token", "settings", "doctor"),
    *("retention", "archive"),
}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory without .env, and no setting in the environment."""
    for name in (*map(variable, Settings.__struct_fields__), "TAILRACE_URL", "TAILRACE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def tailrace(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, SECRET, algorithms=["HS256"], audience="tailrace")


def test_help_names_every_command_and_shows_examples() -> None:
    shown = tailrace("--help").output
    assert set(main.commands) == COMMANDS
    assert all(command in shown for command in COMMANDS)
    assert "tailrace chat" in shown


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_command_explains_itself(command: str) -> None:
    result = tailrace(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


def test_bad_setting_is_one_line_and_exit_code_2() -> None:
    result = tailrace("settings", TAILRACE_PORT="http")
    assert result.exit_code == 2
    assert result.stderr.startswith("tailrace: TAILRACE_PORT='http' is not allowed")
    assert len(result.stderr.splitlines()) == 1


def test_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MONGODB_DB=filed\nTAILRACE_QUEUE=filed\n")
    shown = json.loads(tailrace("settings", "--json", TAILRACE_QUEUE="given").stdout)
    assert (shown["MONGODB_DB"], shown["TAILRACE_QUEUE"]) == ("filed", "given")


def test_settings_prints_every_variable_and_no_secret() -> None:
    shown = tailrace("settings", TAILRACE_JWT_SECRET=SECRET).stdout
    names = [line.partition("=")[0] for line in shown.splitlines()]
    assert names == [variable(field) for field in Settings.__struct_fields__]
    assert SECRET not in shown


def test_token_prints_the_token_and_nothing_else() -> None:
    result = tailrace("token", "--user", "alice", "--expires", "2h", TAILRACE_JWT_SECRET=SECRET)
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert claims(line)["sub"] == "alice"
    assert claims(line)["exp"] - claims(line)["iat"] == 2 * 3600


def test_token_of_a_dev_server_is_signed_with_its_secret(tmp_path: Path) -> None:
    DevServer(jwt_secret=SECRET).save(tmp_path)
    token = tailrace("token", "--user", "alice", "--data-dir", str(tmp_path)).stdout.strip()
    assert claims(token)["sub"] == "alice"


@pytest.mark.parametrize("expires", ["30", "d", "0d", "-1d", "1.5h", "3w", "٣d"])
def test_odd_expiry_is_refused(expires: str) -> None:
    result = tailrace("token", "--user", "alice", "--expires", expires, TAILRACE_JWT_SECRET=SECRET)
    assert result.exit_code == 2
    assert "as in 30d" in result.stderr


def test_token_without_a_secret_names_the_variable() -> None:
    result = tailrace("token", "--user", "alice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "TAILRACE_JWT_SECRET" in result.stderr


def test_dev_servers_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    DevServer.made().save(tmp_path)
    DevServer.made().save(tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_data_directory_is_held_by_one(tmp_path: Path) -> None:
    with (
        held(tmp_path / "data"),
        pytest.raises(TailraceError, match="Another `tailrace dev`"),
        held(tmp_path / "data"),
    ):
        pass
    with held(tmp_path / "data"):
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked the terminal client for."""
    asked: dict[str, Any] = {}

    def take(**given: Any) -> int:
        asked.update(given)
        return 7

    monkeypatch.setattr(terminal, "chat", take)
    monkeypatch.setattr(terminal, "tail", take)
    return asked


def test_chat_speaks_to_the_dev_server_of_the_data_directory(asked: dict[str, Any], tmp_path: Path) -> None:
    DevServer(jwt_secret=SECRET, url="http://127.0.0.1:8123").save(tmp_path)
    result = tailrace("chat", "Hello", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (7, "")
    assert (asked["url"], asked["prompt"], asked["session"]) == ("http://127.0.0.1:8123", "Hello", None)
    assert claims(asked["token"])["sub"] == "dev"


def test_tail_takes_url_and_token_from_the_environment(asked: dict[str, Any]) -> None:
    result = tailrace("tail", "s1", TAILRACE_URL="https://tail.example", TAILRACE_TOKEN="t")
    assert result.exit_code == 7
    assert (asked["url"], asked["token"], asked["session"]) == ("https://tail.example", "t", "s1")


def test_chat_without_a_server_says_how_to_start_one() -> None:
    result = tailrace("chat", "Hello")
    assert result.exit_code == 1
    assert "tailrace dev" in result.stderr


def test_dev_servers_token_is_not_sent_elsewhere(asked: dict[str, Any], tmp_path: Path) -> None:
    DevServer(jwt_secret=SECRET, url="http://127.0.0.1:8123").save(tmp_path)
    result = tailrace("chat", "Hello", "--url", "http://elsewhere.example", "--data-dir", str(tmp_path))
    assert (result.exit_code, asked) == (2, {})
    assert "--token" in result.stderr


@pytest.mark.parametrize(("missing", "extra"), [("litestar", "api"), ("jwt", "api")])
def test_missing_library_names_the_extra(missing: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: Settings, **given: Any) -> str:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("tailrace.tokens.mint", refuse)
    result = tailrace("token", "--user", "alice", TAILRACE_JWT_SECRET=SECRET)
    assert result.exit_code == 1
    hint = f"pip install '.[{extra}]' in Tailrace's checkout"
    assert result.stderr == f"tailrace: This needs {missing}: {hint}\n"


def test_init_db_makes_the_indexes_and_may_be_repeated(settings: Settings) -> None:
    environ = settings.to_env()
    first, second = tailrace("init-db", **environ), tailrace("init-db", "--json", **environ)
    assert f"{settings.mongodb_db}.events: session_seq" in first.stdout
    assert set(json.loads(second.stdout)["indexes"]) == set(INDEXES)


def test_unreachable_mongodb_is_one_line() -> None:
    # In a process of its own: PyMongo's async client leaves the socket of a refused connection open when it
    # is closed while it tries again, and warnings are errors here.
    result = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", "init-db"],
        env={**os.environ, "MONGODB_URL": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("tailrace: MongoDB does not answer")
    assert len(result.stderr.splitlines()) == 1
