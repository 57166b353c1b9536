"""What the routes work with: made once by `create_app`, found in `app.state.services`."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.datastructures import State

from tailrace.api.figures import Figures
from tailrace.api.indexes import Indexes
from tailrace.api.limits import Limits
from tailrace.erasure import Erasure
from tailrace.eventlog import EventLog
from tailrace.jobs import Jobs
from tailrace.live import Live
from tailrace.messages import Messages
from tailrace.mongo import Database
from tailrace.recovery import Recovery
from tailrace.runs import Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings

__all__ = ["Services", "provide_services"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The API's parts, alive from start-up to shutdown. A dataclass, for these are objects and no data."""

    settings: Settings
    database: Database
    indexes: Indexes
    log: EventLog
    runs: Runs
    messages: Messages
    sessions: Sessions
    jobs: Jobs
    recovery: Recovery
    erasure: Erasure
    live: Live
    limits: Limits
    figures: Figures


async def provide_services(state: State) -> Services:
    """The dependency `services`."""
    services: Services = state.services
    return services
