"""The commands that help who runs a deployment."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from tailrace.cli.group import as_json_option, environ, main
from tailrace.devserver import DevServer
from tailrace.errors import SettingError
from tailrace.settings import Settings

__all__: list[str] = []

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


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

    settings = Settings.from_env(environ())
    if data_dir is not None:
        settings = DevServer.of(data_dir).apply(settings)
    click.echo(mint(settings, user=user, seconds=_seconds(expires)))


def _seconds(text: str) -> float:
    if not (match := re.fullmatch(r"([0-9]{1,9})([smhd])", text)) or not int(match[1]):
        raise SettingError(
            f"--expires {text!r} is not allowed: it must be a number and s, m, h or d, as in 30d."
        )
    return float(int(match[1]) * _UNITS[match[2]])


@main.command()
@as_json_option
def settings(as_json: bool) -> None:
    """Print every setting's variable and value; secrets are hidden."""
    shown = Settings.from_env(environ()).shown()
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    for name, value in shown.items():
        click.echo(f"{name}={'' if value is None else value}")
