"""The worker image's HEALTHCHECK: 0 when a worker of this host serves the queue, as Redis has it; else 1.

A worker that is gone is gone from Redis 20 s later.
"""

import os
import socket
import sys

from rq import Queue, Worker

from tailrace.jobs import connect_redis
from tailrace.settings import Settings


def healthy() -> bool:
    """Whether one of this host's workers is registered."""
    settings = Settings.from_env(os.environ)
    with connect_redis(settings) as redis:
        workers = Worker.all(queue=Queue(settings.queue, connection=redis))
    return any(worker.hostname == socket.gethostname() for worker in workers)


if __name__ == "__main__":
    sys.exit(not healthy())
