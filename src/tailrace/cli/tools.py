"""The commands that help who runs a deployment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tailrace.cli.group import as_json_option, environ, main, seconds_of
from tailrace.devserver import DevServer
from tailrace.settings import Settings

if TYPE_CHECKING:
    from tailrace.doctor import Finding

__all__: list[str] = []

_of_dev_server = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="For the dev server that uses this directory.",
)


@main.command()
@click.option("--user", required=True, help="Whose token it is.")
@click.option("--expires", default="30d", show_default=True, help="A number and s, m, h or d.")
@_of_dev_server
def token(user: str, expires: str, data_dir: Path | None) -> None:
    """Print a bearer token, and nothing else."""
    from tailrace.tokens import mint

    settings = Settings.from_env(environ())
    if data_dir is not None:
        settings = DevServer.of(data_dir).apply(settings)
    click.echo(mint(settings, user=user, seconds=seconds_of("--expires", expires, least=1)))


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


@main.command()
@click.option("--url", help="The address that browsers use; the API is looked at from there.")
@click.option("--token", help="Bearer token for it.  [default: one made with TAILRACE_JWT_SECRET]")
@_of_dev_server
@as_json_option
def doctor(url: str | None, token: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Check a deployment, and say what to do about what is wrong.

    Looks at MongoDB and Redis with this environment's settings and, with --url, at the API through whatever
    stands before it. The exit code is 1 when there is a problem; a warning is none.
    """
    import asyncio

    from tailrace.doctor import examine

    settings = Settings.from_env(environ())
    if data_dir is not None:
        server = DevServer.of(data_dir)
        settings, url = server.apply(settings), url or server.url

    async def look() -> list[Finding]:
        findings = []
        async for finding in examine(settings, url=url, token=token):
            findings.append(finding)
            if not as_json:
                click.echo(_line(finding))
        return findings

    findings = asyncio.run(look())
    if as_json:
        click.echo(msgspec.json.encode(findings))
    sys.exit(any(finding.level == "problem" for finding in findings))


def _line(finding: Finding) -> str:
    line = f"{finding.level:8} {finding.check:18} {finding.saw}"
    return f"{line}\n{'':28}{finding.advice}" if finding.advice else line
