"""The command itself: its help, its errors in one line, and the options that several commands share."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from tailrace.devserver import DEFAULT_DATA_DIR
from tailrace.errors import SettingError, TailraceError
from tailrace.settings import read_env_file

__all__ = ["as_json_option", "data_dir_option", "environ", "main", "seconds_of"]

# Of a command; the others need `api`.
_EXTRAS = {"dev": "api,worker,embedded", "worker": "worker", "archive": "archive"}

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_EXAMPLES = """\b
Examples:
  tailrace dev                            everything on this machine, for development
  tailrace chat "What is 17 * 23?"        ask, and see the answer arrive
  tailrace tail SESSION --since 10m       what happened in a session, and what happens next
  tailrace cancel SESSION                 end what runs in a session
  tailrace verify SESSION                 whether its log is whole and unchanged
  tailrace doctor --url https://…         whether a deployment is well, and what to do if not
  tailrace retention                      how long events are kept
  tailrace archive                        events of finished sessions to object storage
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
        return (
            f"This needs {error.name}: pip install '.[{_EXTRAS.get(command, 'api')}]' in Tailrace's checkout"
        )
    return None


def seconds_of(option: str, text: str, *, least: int = 0) -> float:
    """The seconds in `text`, a number from `least` on and a unit. Raises `SettingError` for the option."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None or int(match[1]) < least:
        raise SettingError(
            f"{option} {text!r} is not allowed: it must be a number and s, m, h or d, as in 30d."
        )
    return float(int(match[1]) * _UNITS[match[2]])


def environ() -> dict[str, str]:
    """The environment, over what `.env` says."""
    return read_env_file(Path(".env"), os.environ)


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where the dev server keeps its data.",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="For a program: JSON.")


@click.group(cls=_Group, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailrace", message="%(version)s")
def main() -> None:
    """Tailrace: durable, resumable agent streams."""
