"""The queue of runs, where Redis is not there for it."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import closing

import msgspec
from tests.records import a_run

from tailrace.errors import EnqueueFailed
from tailrace.jobs import Jobs
from tailrace.settings import Settings


async def test_a_redis_that_hangs_holds_up_nobody_for_long_and_leaves_no_thread(settings: Settings) -> None:
    # Connections are made, and never answered.
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hung:
        away = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{hung.getsockname()[1]}/0")
        with closing(Jobs(away)) as jobs:
            async with asyncio.timeout(20):  # in turn, by a few threads, they would take longer
                attempts = [jobs.enqueue(a_run(f"s{nth}")) for nth in range(40)]
                results = await asyncio.gather(*attempts, return_exceptions=True)
        assert [type(each) for each in results] == [EnqueueFailed] * 40
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("jobs")]
