"""The settings: one frozen Struct, made from environment variables at the entry point of each process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from tailrace.errors import SettingError

__all__ = ["Settings", "given", "read_env_file", "variable"]

Flag = bool
Seconds = Annotated[float, Meta(gt=0, le=10 * 365 * 86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of every process. `tailrace settings` prints them; `.env.example` explains them.

    A field `x` is read from `TAILRACE_X`, except those of the design this service replaces, which keep their
    names: `MONGODB_*`, `REDIS_URL` and `LANGFUSE_*`. Instead of each `NAME`, `NAME_FILE` may name a file that
    holds the value.
    """

    # Where the data is.
    mongodb_url: str = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    mongodb_db: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,38}$")] = "tailrace"
    redis_url: Annotated[str, Meta(pattern=r"^(redis|rediss|unix)://")] = "redis://127.0.0.1:6379/0"
    mongo_driver: Literal["pymongo", "motor"] = "pymongo"
    retention_seconds: Seconds = 7 * 86_400.0  # how long events are kept, where nothing else is said
    archive_url: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9]*://.+")] | None = None  # s3://… or file:///…
    max_retention_seconds: Seconds = 365 * 86_400.0  # the longest that a token's claim gets

    # The API.
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000  # 0 takes a free one
    max_body_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    max_prompt_characters: Annotated[int, Meta(ge=0)] = 1_000_000  # 0: only the body is bounded
    keep_alive_seconds: Annotated[float, Meta(ge=0.1, le=15)] = 14.0  # silence before a comment
    send_stall_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 30.0  # then who takes nothing is cut
    drain_seconds: Annotated[int, Meta(ge=1, le=600)] = 10  # from SIGTERM to the end of the last connection

    # What one user may have, over all API processes. 0: no limit.
    max_runs_per_minute: Annotated[int, Meta(ge=0, le=100_000)] = 60
    max_concurrent_runs: Annotated[int, Meta(ge=0, le=1_000)] = 20  # waiting, queued and running
    max_concurrent_streams: Annotated[int, Meta(ge=0, le=1_000_000)] = 200  # tabs and devices

    # Who may use it. One of secret, public key or JWKS.
    jwt_secret: str | None = None  # HS256, at least 32 characters
    jwt_public_key_file: str | None = None  # RS256 or ES256, PEM
    jwt_jwks_file: str | None = None  # RS256 or ES256, by `kid`
    jwt_audience: str = "tailrace"
    jwt_issuer: str = "tailrace"
    dev_user: str | None = None  # the page gets a token of this user, on loopback only; set by `tailrace dev`

    # The worker.
    queue: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "tailrace"
    run_timeout_seconds: Seconds = 600.0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] = 3  # of a run whose worker died
    handover_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 20.0  # from SIGTERM to a run's hand-over
    queue_timeout_seconds: Seconds = 600.0  # for a queued run that no worker is there to take
    agents: str = ""  # NAME=MODULE:FACTORY, separated by commas
    model: str = "offline"  # `offline`, or what LangChain's init_chat_model takes
    model_base_url: str | None = None  # of an OpenAI-compatible server
    offline_tokens_per_second: Annotated[float, Meta(gt=0, le=1_000_000)] = 30.0
    worker_loop: Literal["uvloop", "asyncio"] = "uvloop"  # of a run's process
    history_messages: Annotated[int, Meta(ge=0, le=10_000)] = 100  # of the session, given to the agent

    # Metrics, for Prometheus.
    metrics: Flag = True  # the API answers at /metrics
    worker_metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # of a worker's /metrics; 0 for none

    # Logs.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    # Tracing. On when both keys are set, unless switched off.
    langfuse_enabled: Flag = True
    langfuse_public_key: str | None = None
    langfuse_secret_key: str | None = None
    langfuse_host: str | None = None
    langfuse_base_url: str | None = None  # what Langfuse calls it today; wins over LANGFUSE_HOST
    langfuse_project_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""  # for links to traces

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ`; an empty value counts as not set.

        Raises `SettingError` that names the variable, its value and what is allowed.
        """
        hints = get_type_hints(cls, include_extras=True)
        values = {
            field: _parsed(variable(field), text, hints[field])
            for field in cls.__struct_fields__
            if (text := given(field, environ))
        }
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        if not self.mongodb_url.startswith(("mongodb://", "mongodb+srv://")):
            raise SettingError(
                f"MONGODB_URL={_without_password(self.mongodb_url)!r} is not allowed: "
                "it must begin with mongodb:// or mongodb+srv://."
            )
        if self.jwt_secret is not None and len(self.jwt_secret.encode()) < 32:
            raise SettingError(
                "TAILRACE_JWT_SECRET is too short: HS256 needs at least 32 bytes. "
                "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )

        if self.retention_seconds < self.outliving_seconds:
            raise SettingError(
                f"TAILRACE_RETENTION_SECONDS={self.retention_seconds:g} is too short: events must outlive "
                f"their run. It must be {self.outliving_seconds:g} or more, TAILRACE_RUN_TIMEOUT_SECONDS and "
                "a minute."
            )

    @property
    def outliving_seconds(self) -> float:
        """For how long events are kept at least: `seq` goes on from what stands of an unfinished run."""
        return self.run_timeout_seconds + 60.0

    @property
    def langfuse_url(self) -> str:
        """Where Langfuse is."""
        return (self.langfuse_base_url or self.langfuse_host or "https://cloud.langfuse.com").rstrip("/")

    @property
    def tracing(self) -> bool:
        """Whether runs are traced."""
        return self.langfuse_enabled and bool(self.langfuse_public_key and self.langfuse_secret_key)

    def trace_url(self, trace_id: str | None) -> str | None:
        """Where a person sees the trace; None without one, or while tracing is off."""
        if trace_id is None or not self.tracing:
            return None
        if not self.langfuse_project_id:
            return f"{self.langfuse_url}/trace/{trace_id}"  # which Langfuse redirects
        return f"{self.langfuse_url}/project/{self.langfuse_project_id}/traces/{trace_id}"

    def to_env(self) -> dict[str, str]:
        """The variables that make these settings again, for a child process; only those that differ."""
        default = Settings()
        return {
            variable(field): str(value).lower() if isinstance(value, bool) else str(value)
            for field in self.__struct_fields__
            if (value := getattr(self, field)) != getattr(default, field) and value is not None
        }

    def shown(self) -> dict[str, Any]:
        """Every variable and its value, for a person: secrets and passwords are hidden."""
        return {variable(field): _hidden(field, getattr(self, field)) for field in self.__struct_fields__}


_KEEP_THEIR_NAMES = ("mongodb_url", "mongodb_db", "redis_url", "langfuse_")
_SECRET = ("jwt_secret", "langfuse_secret_key")


def variable(field: str) -> str:
    """The environment variable of a field."""
    return field.upper() if field.startswith(_KEEP_THEIR_NAMES) else f"TAILRACE_{field.upper()}"


def given(field: str, environ: Mapping[str, str]) -> str:
    """The text that `environ` gives for a field, itself or in the file of `NAME_FILE`; empty if neither.

    Raises `SettingError` when both are set, or the file cannot be read or is empty.
    """
    name = variable(field)
    text, path = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
    if not path:
        return text
    if text:
        raise SettingError(f"{name} and {name}_FILE are both set: choose one.")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingError(f"{name}_FILE={path!r} cannot be read: {reason}.") from error
    if not text:
        raise SettingError(f"{name}_FILE={path!r} is empty.")
    return text


def read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` over the `NAME=value` lines of `path`, which may not exist; `#` begins a comment line."""
    if not path.is_file():
        return dict(environ)
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"{path}, line {number}: {text[:60]!r} is not NAME=value.")
        found[name.strip()] = value.strip().strip("\"'")
    return {**found, **environ}


def _parsed(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        flag = _FLAGS.get(text.lower())
        if flag is None:
            raise SettingError(f"{name}={text!r} is not allowed: it must be true or false.")
        return flag
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        shown = "(hidden)" if name.lower().endswith(_SECRET) else repr(_without_password(text))
        raise SettingError(f"{name}={shown} is not allowed: {_allowed(kind)}.") from error


_FLAGS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _allowed(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "it must be one of " + ", ".join(get_args(kind))
    base, *constraints = get_args(kind) or (kind,)
    words = {int: "a whole number", float: "a number"}.get(base, "text")
    for meta in constraints:
        if isinstance(meta, Meta):
            if meta.pattern:
                words += f" that matches {meta.pattern}"
            if meta.ge is not None:
                words += f" from {meta.ge}"
            if meta.gt is not None:
                words += f" above {meta.gt}"
            if meta.le is not None:
                words += f" to {meta.le:,}"
    return f"it must be {words}"


def _hidden(field: str, value: Any) -> Any:
    if field in _SECRET and value is not None:
        return "(hidden)"
    return _without_password(value) if isinstance(value, str) else value


def _without_password(url: str) -> str:
    if not re.search(r"//[^/@]*:[^/@]*@", url):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc="***:***@" + parts.netloc.rpartition("@")[2]))
