"""The commands that ask a running server."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tailrace.cli.group import as_json_option, data_dir_option, environ, main
from tailrace.devserver import DEV_USER, DevServer
from tailrace.errors import SettingError, TailraceError
from tailrace.settings import Settings

__all__: list[str] = []


def _asks(command: Callable[..., int]) -> Callable[..., None]:
    """The options of a command that asks a server, which gets `url` and `token` and returns its exit code."""

    @as_json_option
    @click.option("--url", help="Of the API.  [default: TAILRACE_URL, or the dev server's]")
    @click.option("--token", help="Bearer token.  [default: TAILRACE_TOKEN, or the dev server's]")
    @data_dir_option
    @functools.wraps(command)
    def asked(*, url: str | None, token: str | None, data_dir: Path, **given: Any) -> None:
        url, token = _server(environ(), url, token, data_dir)
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
    variables: Mapping[str, str], url: str | None, token: str | None, data_dir: Path
) -> tuple[str, str]:
    url, token = url or variables.get("TAILRACE_URL"), token or variables.get("TAILRACE_TOKEN")
    if url and not url.startswith(("http://", "https://")):
        raise SettingError(f"{url!r} is no address of an API: it must begin with http:// or https://.")
    if url and token:
        return url, token
    server = DevServer.load(data_dir)
    if server is None:
        raise TailraceError(
            "Which server? Name it by --url and --token, or TAILRACE_URL and TAILRACE_TOKEN; "
            f"or start one here: tailrace dev --data-dir {data_dir}"
        )
    if token:
        return server.url, token
    if url and url.rstrip("/") != server.url:
        raise SettingError(f"A token for {url} is missing: give --token or TAILRACE_TOKEN.")

    from tailrace.tokens import mint

    return server.url, mint(server.apply(Settings.from_env(variables)), user=DEV_USER)
