"""The command `tailrace`. Each command imports what it needs: `--help` is fast, extras stay optional."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec

from tailrace.devserver import DEFAULT_DATA_DIR, DEV_USER, DevServer
from tailrace.errors import SettingError, TailraceError
from tailrace.settings import Settings, read_env_file

__all__ = ["main"]

_EXTRAS = {"dev": "api,worker,embedded", "worker": "worker"}  # of a command; the others need `api`
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_EXAMPLES = """\b
Examples:
  tailrace dev                            everything on this machine, for development
  tailrace chat "What is 17 * 23?"        ask, and see the answer arrive
  tailrace tail SESSION --since 10m       what happened in a session, and what happens next
  tailrace cancel SESSION                 end what runs in a session
  tailrace verify SESSION                 whether its log is whole and unchanged
  tailrace token --user alice             a bearer token, for curl

\b
In production each process runs alone: tailrace init-db once, then tailrace api and tailrace worker.
Settings are environment variables, or lines in .env; `tailrace settings` shows them all.
"""


class _Group(click.Group):
    """Says in one line what went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if (message := _said(error, ctx.invoked_subcommand or "")) is None:
                raise
            click.echo(f"tailrace: {message}", err=True)
            return ctx.exit(2 if isinstance(error, SettingError) else 1)


def _said(error: Exception, command: str) -> str | None:
    """What a person is told of `error`; None for a mistake in the program."""
    from pymongo.errors import PyMongoError

    if isinstance(error, TailraceError):
        return str(error)
    if isinstance(error, PyMongoError):
        return f"MongoDB does not answer as it should: {str(error).partition(', Timeout:')[0]}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("tailrace"):
        return f"This needs {error.name}: pip install 'tailrace[{_EXTRAS.get(command, 'api')}]'"
    return None


def _environ() -> dict[str, str]:
    return read_env_file(Path(".env"), os.environ)


_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where the dev server keeps its data.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="For a program: JSON.")


@click.group(cls=_Group, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailrace", message="%(version)s")
def main() -> None:
    """Tailrace: durable, resumable agent streams."""


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Of the API; 0 takes a free one.  [default: 8000]"
)
@_data_dir
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Runs at a time.")
def dev(port: int | None, data_dir: Path, workers: int) -> None:
    """Run everything in this terminal, for development.

    Starts MongoDB and Valkey (unless MONGODB_URL and REDIS_URL name running ones), the API and the workers.
    Ctrl-C ends them all; the data stays. The logs are in DATA_DIR/logs.
    """
    from tailrace.dev import dev as run

    run(_environ(), port=port, data_dir=data_dir, workers=workers, say=click.echo)


@main.command()
@click.option("--host", help="Address to listen on.  [default: TAILRACE_HOST]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: TAILRACE_PORT]")
def api(host: str | None, port: int | None) -> None:
    """Run the API until SIGTERM or SIGINT."""
    settings = Settings.from_env(_environ())
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}

    from tailrace.api.server import serve
    from tailrace.logs import configure

    configure(settings)
    serve(msgspec.structs.replace(settings, **given))


@main.command()
@click.option(
    "-n", "--number", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at a time."
)
def worker(number: int) -> None:
    """Run workers until SIGTERM or SIGINT."""
    environ = _environ()
    Settings.from_env(environ)
    for module in ("langchain", "rq"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    argv = [sys.executable, "-m", "tailrace_worker", "-n", str(number)]
    os.execve(sys.executable, argv, environ)


@main.command("init-db")
@_as_json
def init_db(as_json: bool) -> None:
    """Make the indexes that MongoDB lacks; harmless to repeat."""
    import asyncio

    from tailrace.mongo import connect, ensure_indexes

    settings = Settings.from_env(_environ())

    async def make() -> dict[str, list[str]]:
        async with connect(settings) as database:
            return await ensure_indexes(database)

    made = asyncio.run(make())
    if as_json:
        click.echo(msgspec.json.encode({"database": settings.mongodb_db, "indexes": made}))
        return
    for collection, names in made.items():
        click.echo(f"{settings.mongodb_db}.{collection}: {', '.join(names)}")


@main.command()
@click.option("--user", required=True, help="Whose token it is.")
@click.option("--expires", default="30d", show_default=True, help="A number and s, m, h or d.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="For the dev server that uses this directory.",
)
def token(user: str, expires: str, data_dir: Path | None) -> None:
    """Print a bearer token, and nothing else."""
    from tailrace.tokens import mint

    settings = Settings.from_env(_environ())
    if data_dir is not None:
        settings = DevServer.of(data_dir).apply(settings)
    click.echo(mint(settings, user=user, seconds=_seconds(expires)))


def _seconds(text: str) -> float:
    if not (match := re.fullmatch(r"([0-9]{1,9})([smhd])", text)) or not int(match[1]):
        raise SettingError(
            f"--expires {text!r} is not allowed: it must be a number and s, m, h or d, as in 30d."
        )
    return float(int(match[1]) * _UNITS[match[2]])


def _asks(command: Callable[..., int]) -> Callable[..., None]:
    """The options of a command that asks a server, which gets `url` and `token` and returns its exit code."""

    @_as_json
    @click.option("--url", help="Of the API.  [default: TAILRACE_URL, or the dev server's]")
    @click.option("--token", help="Bearer token.  [default: TAILRACE_TOKEN, or the dev server's]")
    @_data_dir
    @functools.wraps(command)
    def asked(*, url: str | None, token: str | None, data_dir: Path, **given: Any) -> None:
        url, token = _server(_environ(), url, token, data_dir)
        sys.exit(command(url=url, token=token, **given))

    return asked


@main.command()
@click.argument("prompt")
@click.option("--session", help="Go on in this session; a new one by default.")
@click.option("--agent", help="The agent to ask.")
@_asks
def chat(**given: Any) -> int:
    """Run a prompt and print the answer as it arrives.

    Ctrl-C cancels the run; a second one leaves at once.
    """
    from tailrace.client import terminal

    return terminal.chat(**given)


@main.command()
@click.argument("session")
@click.option("--since", help="Unix seconds, an ISO time, or an age such as 10m; the beginning by default.")
@click.option(
    "--follow",
    type=click.Choice(["run", "session", "none"]),
    default="session",
    show_default=True,
    help="Until the active run ends, for ever, or only what there is.",
)
@_asks
def tail(**given: Any) -> int:
    """Print what happened in a session, and what happens next."""
    from tailrace.client import terminal

    return terminal.tail(**given)


@main.command()
@click.argument("session")
@_asks
def cancel(**given: Any) -> int:
    """End what runs in a session.

    What the agent has said until then stays. Nothing happens, and the exit code is 0, when nothing runs.
    """
    from tailrace.client import terminal

    return terminal.cancel(**given)


@main.command()
@click.argument("session")
@_asks
def verify(**given: Any) -> int:
    """Check that a session's log is whole and unchanged.

    Reads it from its beginning: no event is missing, each run has one finish, as its last event, and the
    finish's digest is that of the run's frames. The exit code is 0 when nothing is wrong, else 1. A run that
    goes on, or whose beginning has expired (partial), is named and is not wrong.
    """
    from tailrace.client import terminal

    return terminal.verify(**given)


def _server(
    environ: Mapping[str, str], url: str | None, token: str | None, data_dir: Path
) -> tuple[str, str]:
    url, token = url or environ.get("TAILRACE_URL"), token or environ.get("TAILRACE_TOKEN")
    if url and token:
        return url, token
    server = DevServer.of(data_dir)
    if token:
        return server.url, token
    if url and url.rstrip("/") != server.url:
        raise SettingError(f"A token for {url} is missing: give --token or TAILRACE_TOKEN.")

    from tailrace.tokens import mint

    return server.url, mint(server.apply(Settings.from_env(environ)), user=DEV_USER)


@main.command()
@_as_json
def settings(as_json: bool) -> None:
    """Print every setting's variable and value; secrets are hidden."""
    shown = Settings.from_env(_environ()).shown()
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    for name, value in shown.items():
        click.echo(f"{name}={'' if value is None else value}")


if __name__ == "__main__":
    main()
