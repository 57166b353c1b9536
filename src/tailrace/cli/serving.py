"""The commands that serve: each runs a process, or prepares the database for it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec

from tailrace.cli.group import as_json_option, data_dir_option, environ, main
from tailrace.dashboard import DEFAULT_PORT
from tailrace.errors import SettingError
from tailrace.settings import Settings

__all__: list[str] = []


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Of the API; 0 takes a free one.  [default: 8000]"
)
@data_dir_option
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Runs at a time.")
@click.option("--dashboard", is_flag=True, help="Start rq-dashboard too.")
def dev(port: int | None, data_dir: Path, workers: int, dashboard: bool) -> None:
    """Run everything in this terminal, for development.

    Starts MongoDB and Valkey (unless MONGODB_URL and REDIS_URL name running ones), the API and the workers.
    Ctrl-C ends them all; the data stays. The logs are in DATA_DIR/logs.
    """
    from tailrace.dev import dev as run

    run(
        environ(),
        port=port,
        data_dir=data_dir,
        workers=workers,
        dashboard_port=DEFAULT_PORT if dashboard else None,
        say=click.echo,
    )


@main.command()
@click.option("--host", help="Address to listen on.  [default: TAILRACE_HOST]")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes a free one.  [default: TAILRACE_PORT]")
def api(host: str | None, port: int | None) -> None:
    """Run the API until SIGTERM or SIGINT."""
    settings = Settings.from_env(environ())
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
    variables = environ()
    Settings.from_env(variables)
    for module in ("langchain", "rq"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)
    argv = [sys.executable, "-m", "tailrace_worker", "-n", str(number)]
    os.execve(sys.executable, argv, variables)


@main.command("init-db")
@click.option("--sharded", is_flag=True, help="Shard the collections too; MONGODB_URL names the mongos.")
@click.option("--ranges", is_flag=True, help="With --sharded: by ranges of session ids, for zones.")
@as_json_option
def init_db(sharded: bool, ranges: bool, as_json: bool) -> None:
    """Make the indexes that MongoDB lacks; harmless to repeat.

    With --sharded, MONGODB_URL leads to the mongos of a sharded cluster. Events, messages, runs and archived
    segments are sharded by session_id, sessions and notes by _id, which is the session's id; what else there
    is stays on the database's first shard. Keys are hashed: sessions spread evenly, whatever their ids are.
    With --ranges they are not, so that zones can keep the sessions whose ids begin with the name of a region
    in that region. A cluster that is sharded by the one cannot go over to the other by this command.

    docs/scaling.md says when a cluster is worth it, and what else it needs.
    """
    import asyncio

    from tailrace.mongo import connect, ensure_indexes
    from tailrace.sharding import KEYS, shard

    if ranges and not sharded:
        raise SettingError("--ranges says how --sharded shards: give both.")
    settings = Settings.from_env(environ())

    async def make() -> tuple[dict[str, list[str]], list[str]]:
        async with connect(settings) as database:
            made = await ensure_indexes(database)
            return made, await shard(database, ranges=ranges) if sharded else []

    made, shards = asyncio.run(make())
    if as_json:
        found = {"database": settings.mongodb_db, "indexes": made}
        click.echo(msgspec.json.encode({**found, "sharded": shards} if sharded else found))
        return
    for collection, names in made.items():
        click.echo(f"{settings.mongodb_db}.{collection}: {', '.join(names)}")
    for collection in shards:
        by = f"{KEYS[collection]}{'' if ranges else ', hashed'}"
        click.echo(f"{settings.mongodb_db}.{collection}: sharded by {by}")
