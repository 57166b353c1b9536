"""rq-dashboard over the run queue, for whoever operates it: an optional process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tailrace.child import Child
from tailrace.errors import TailraceError
from tailrace.settings import Settings

__all__ = ["DEFAULT_PORT", "dashboard", "ensure_installed"]

DEFAULT_PORT = 9181  # rq-dashboard's own

# Its own command; `python -m` has no entry there.
_MAIN = "from rq_dashboard.cli import main; main()"


def ensure_installed() -> None:
    """Raise `TailraceError` that says what to install, if the dashboard is not there."""
    if find_spec("rq_dashboard") is None:
        raise TailraceError("There is no dashboard: pip install '.[dashboard]' in Tailrace's checkout")


def dashboard(settings: Settings, *, port: int, log: Path, environ: Mapping[str, str] = os.environ) -> Child:
    """The process, not started: on loopback, without a password of its own."""
    # By the environment: a command line is seen by everybody on the machine, and the URL may hold a password.
    given = {
        "RQ_DASHBOARD_REDIS_URL": settings.redis_url,
        "RQ_DASHBOARD_BIND": "127.0.0.1",
        "RQ_DASHBOARD_PORT": str(port),
        "RQ_DASHBOARD_JSON": "true",  # jobs are serialized as JSON
    }
    return Child("dashboard", [sys.executable, "-c", _MAIN], log=log, environ={**environ, **given})
