"""`python -m tailrace_worker`: RQ workers that run agents."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tailrace.errors import TailraceError
from tailrace.logs import configure
from tailrace.settings import Settings, read_env_file

_EPILOG = """\
Settings come from the environment and from .env in the working directory:

  REDIS_URL                     where jobs come from, e.g. redis://127.0.0.1:6379/0
  MONGODB_URL, MONGODB_DB       where events go, a replica set
  TAILRACE_QUEUE                the RQ queue
  TAILRACE_MODEL                offline, or a name for LangChain's init_chat_model, e.g. openai:NAME
  TAILRACE_MODEL_BASE_URL       an OpenAI-compatible server for TAILRACE_MODEL
  TAILRACE_AGENTS               your own agents: support=my_pkg.agents:build,other=…
  TAILRACE_RUN_TIMEOUT_SECONDS  how long a run may take
  TAILRACE_HANDOVER_SECONDS     how long it may go on after SIGTERM
  TAILRACE_WORKER_METRICS_PORT  where Prometheus finds what all its runs counted
  LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY, LANGFUSE_BASE_URL   tracing, if you want it

Each worker performs one run at a time, in a process of its own. After SIGTERM or SIGINT the runs may go on
for TAILRACE_HANDOVER_SECONDS; then they are handed over to other workers, which begin them again. A second
signal, a second later, hands them over at once.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run workers until SIGTERM or SIGINT; the exit status."""
    parser = argparse.ArgumentParser(
        prog="tailrace worker",
        description="Run agents: take runs from Redis, append what they do to MongoDB.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", "--workers", type=_count, default=1, metavar="N", help="how many at a time (1)")
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings.from_env(read_env_file(Path(".env"), os.environ))
        return _supervise(settings, chosen.workers)
    except TailraceError as error:
        print(f"tailrace worker: {error}", file=sys.stderr)
        return 2


def _supervise(settings: Settings, count: int) -> int:
    from tailrace_worker.exporter import exported
    from tailrace_worker.pool import Pool
    from tailrace_worker.preload import preload
    from tailrace_worker.worker import work

    configure(settings)
    preload(settings)
    with exported(settings) as exporter:

        def perform() -> int:
            if exporter is not None:
                exporter.forget()
            return work(settings)

        pool = Pool(
            perform,
            count=count,
            handover_seconds=settings.handover_seconds,
            beside=exporter.tend if exporter is not None else lambda: None,
        )
        return pool.run()


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 256:
        raise argparse.ArgumentTypeError("must be from 1 to 256")
    return count


if __name__ == "__main__":
    sys.exit(main())
