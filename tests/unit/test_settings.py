"""Settings: what is taken, what is refused and how it is said, and what `.env.example` promises."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from tailrace.dev import child_environ
from tailrace.errors import SettingError
from tailrace.settings import Settings, read_env_file, variable

SECRET = "a-secret-that-nobody-may-ever-read-in-a-log"
EXAMPLE = Path(__file__).parents[2] / ".env.example"


def refusal(name: str, value: str) -> str:
    with pytest.raises(SettingError) as caught:
        Settings.from_env({name: value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("TAILRACE_PORT", "80000", "a whole number from 0 to 65,535"),
        ("TAILRACE_PORT", "http", "a whole number from 0 to 65,535"),
        ("TAILRACE_RUN_TIMEOUT_SECONDS", "0", "a number above 0"),
        ("TAILRACE_RETENTION_SECONDS", "nan", "a number above 0"),
        ("TAILRACE_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("TAILRACE_MONGO_DRIVER", "mongoose", "one of pymongo, motor"),
        ("LANGFUSE_ENABLED", "perhaps", "true or false"),
        ("MONGODB_URL", "postgres://localhost", "mongodb://"),
        ("MONGODB_DB", "a/b", "text that matches"),
        ("REDIS_URL", "http://localhost", "redis"),
    ],
)
def test_bad_value_names_the_variable_the_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    said = refusal(name, value)
    assert name in said
    assert repr(value) in said
    assert allowed in said


def test_short_secret_is_refused_without_being_shown() -> None:
    said = refusal("TAILRACE_JWT_SECRET", "hunter2")
    assert "TAILRACE_JWT_SECRET" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("name", ["MONGODB_URL", "REDIS_URL"])
def test_password_in_a_refused_url_is_not_shown(name: str) -> None:
    assert "hunter2" not in refusal(name, "ftp://alice:hunter2@db.example/x")


def test_secrets_and_passwords_are_hidden_where_settings_are_shown() -> None:
    shown = Settings.from_env(
        {
            "TAILRACE_JWT_SECRET": SECRET,
            "LANGFUSE_SECRET_KEY": SECRET,
            "MONGODB_URL": "mongodb://alice:hunter2@db.example/?replicaSet=rs0",
            "REDIS_URL": "redis://:hunter2@cache.example/0",
        }
    ).shown()
    assert shown["TAILRACE_JWT_SECRET"] == shown["LANGFUSE_SECRET_KEY"] == "(hidden)"
    assert "db.example" in shown["MONGODB_URL"]
    assert SECRET not in str(shown)
    assert "hunter2" not in str(shown)


def test_empty_value_counts_as_not_set() -> None:
    assert Settings.from_env({"TAILRACE_PORT": "", "REDIS_URL": " "}) == Settings()


def test_value_is_read_from_the_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "port").write_text("9000")
    settings = Settings.from_env(
        {
            "TAILRACE_JWT_SECRET_FILE": str(tmp_path / "secret"),
            "TAILRACE_PORT_FILE": str(tmp_path / "port"),
            "REDIS_URL_FILE": "",
        }
    )
    assert settings == Settings(jwt_secret=SECRET, port=9000)


def test_value_in_a_file_is_held_to_the_same_rules_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("ftp://alice:hunter2@db.example/x\n")
    said = refusal("REDIS_URL_FILE", str(tmp_path / "url"))
    assert "redis" in said
    assert "hunter2" not in said


def test_secret_file_that_is_missing_empty_or_given_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, reason in (("none", "No such file"), ("empty", "empty"), ("binary", "not UTF-8")):
        said = refusal("TAILRACE_JWT_SECRET_FILE", str(tmp_path / name))
        assert "TAILRACE_JWT_SECRET_FILE" in said
        assert reason in said
    with pytest.raises(SettingError, match="TAILRACE_JWT_SECRET and TAILRACE_JWT_SECRET_FILE are both set"):
        Settings.from_env(
            {"TAILRACE_JWT_SECRET": SECRET, "TAILRACE_JWT_SECRET_FILE": str(tmp_path / "empty")}
        )


def test_no_variable_is_the_file_of_another() -> None:
    names = {variable(field) for field in Settings.__struct_fields__}
    assert not {f"{name}_FILE" for name in names} & names


def test_child_gets_the_settings_and_not_the_files_they_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    environ = {"TAILRACE_JWT_SECRET_FILE": str(tmp_path / "secret"), "PATH": "/bin"}
    settings = Settings.from_env(environ)
    inherited = child_environ(settings, environ)
    assert Settings.from_env(inherited) == settings
    assert inherited["PATH"] == "/bin"


def test_environment_for_a_child_makes_the_same_settings_again() -> None:
    settings = Settings(port=0, jwt_secret=SECRET, langfuse_enabled=False, retention_seconds=6000.5)
    assert Settings.from_env(settings.to_env()) == settings


def test_names_of_the_replaced_design_are_kept() -> None:
    kept = {"MONGODB_URL", "MONGODB_DB", "REDIS_URL"}
    names = {variable(field) for field in Settings.__struct_fields__}
    assert kept <= names
    assert all(name.startswith(("TAILRACE_", "LANGFUSE_")) for name in names - kept)


def test_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# a comment\n\nexport MONGODB_DB='filed'\nTAILRACE_PORT=9000\n")
    assert read_env_file(path, {"TAILRACE_PORT": "9001"}) == {"MONGODB_DB": "filed", "TAILRACE_PORT": "9001"}


def test_env_file_line_that_is_no_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("MONGODB_DB=x\nnonsense\n")
    with pytest.raises(SettingError, match="line 2: 'nonsense'"):
        read_env_file(path, {})


def test_env_example_lists_exactly_the_settings_with_their_defaults() -> None:
    listed = dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text("utf-8"), re.MULTILINE))
    assert set(listed) == {variable(field) for field in Settings.__struct_fields__}
    assert msgspec.structs.asdict(Settings.from_env(listed)) == msgspec.structs.asdict(Settings())
