"""The commands about what is kept of sessions, for how long, and where."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from tailrace.cli.group import as_json_option, environ, main, seconds_of
from tailrace.errors import ArchiveUnavailable, SettingError
from tailrace.settings import Settings

if TYPE_CHECKING:
    from tailrace.archive.archiver import Archived
    from tailrace.retention import Kept, Overview

__all__: list[str] = []

MAX_FAILURES = 20  # then the store is not there for the others either

_DAY = 86_400
_MOST_DAYS = 3_650.0


@main.command()
@click.argument("session", required=False)
@click.option("--days", type=click.FloatRange(0, _MOST_DAYS, min_open=True), help="Keep its events so long.")
@click.option("--forever", is_flag=True, help="Keep its events until it is erased.")
@click.option("--default", is_flag=True, help="Keep its events as the settings say.")
@as_json_option
def retention(session: str | None, days: float | None, forever: bool, default: bool, as_json: bool) -> None:
    """Show how long events are kept, or change it for a SESSION.

    A change counts for the events that there are and for those that come. A run that is active keeps what it
    writes as it was told at its beginning: repeat the command when it has ended.
    """
    from tailrace.mongo import connect
    from tailrace.retention import Retention

    settings = Settings.from_env(environ())
    wishes = [wish for wish in (days is not None, forever, default) if wish]
    if len(wishes) > 1 or (wishes and session is None):
        raise SettingError("Give a SESSION with one of --days, --forever and --default, or none of them.")

    async def look() -> Kept | Overview:
        async with connect(settings) as database:
            kept = Retention(settings, database)
            if session is None:
                return await kept.overview()
            if wishes:
                seconds = None if default else 0.0 if forever else (days or 0.0) * _DAY
                await kept.change(session, seconds, told=_told)
            return await kept.of(session)

    found = asyncio.run(look())
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for name, value in msgspec.to_builtins(found).items():
        click.echo(f"{name.replace('_', ' '):20} {_shown(name, value)}")


@main.command()
@click.option(
    "--older-than",
    default="1h",
    show_default=True,
    help="Sessions that are quiet for so long.",
)
@as_json_option
def archive(older_than: str, as_json: bool) -> None:
    """Put the events of finished sessions into TAILRACE_ARCHIVE_URL.

    For cron: it goes through all sessions that have something to archive and no active run, and ends. Repeat
    it as often as you like, also while another one runs; what one that died left undone, the next does. With
    the setting on, events expire from MongoDB only when they are archived. The exit code is 1 when it had to
    leave a session for the next time.
    """
    settings = Settings.from_env(environ())
    if not settings.archive_url:
        raise SettingError("Archiving needs TAILRACE_ARCHIVE_URL, such as s3://BUCKET/PREFIX.")
    seconds = seconds_of("--older-than", older_than)

    def said(archived: Archived) -> None:
        if as_json:
            click.echo(msgspec.json.encode(archived))
        elif archived.segments:
            size = f"{archived.bytes:,} bytes, {archived.stored_bytes:,} in the archive"
            click.echo(f"{archived.session_id}: {archived.events:,} events, {size}")

    if failures := asyncio.run(_archive(settings, seconds, said)):
        raise ArchiveUnavailable(f"{failures[0]} ({len(failures)} sessions are left for the next time)")


async def _archive(settings: Settings, seconds: float, said: Callable[[Archived], None]) -> list[str]:
    """Archive what is there to archive; what kept sessions from it."""
    from tailrace.archive import ObjectStore
    from tailrace.archive.archiver import Archiver
    from tailrace.archive.passes import Passes
    from tailrace.mongo import connect, ensure_indexes

    store = ObjectStore.of(settings)
    assert store is not None
    failures = []
    began_at = time.time()
    try:
        async with connect(settings) as database:
            await ensure_indexes(database)  # where two archivers collide
            archiver = Archiver(settings, database, store)
            async for session_id in archiver.waiting(quiet_seconds=seconds):
                try:
                    archived = await archiver.archive(session_id, quiet_seconds=seconds)
                except ArchiveUnavailable as error:
                    failures.append(f"{session_id}: {error}")
                    if len(failures) == MAX_FAILURES:
                        return failures
                else:
                    if archived is not None:
                        said(archived)
            if not failures:
                await Passes(database).went_through(began_at)
    finally:
        store.close()
    return failures


def _told(done: int, all_: int) -> None:
    click.echo(f"{done:,} of {all_:,} events", err=True)


def _shown(name: str, value: object) -> str:
    if name == "sessions" and isinstance(value, dict):
        return ", ".join(f"{count:,} for {_time(float(kept))}" for kept, count in value.items()) or "none"
    if name == "retention_seconds" and isinstance(value, float):
        return _time(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _time(seconds: float) -> str:
    if not seconds:
        return "ever"
    days = seconds / _DAY
    return f"{days:g} days" if math.isclose(days, round(days, 2)) else f"{seconds:g} s"
