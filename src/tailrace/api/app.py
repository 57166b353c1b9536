"""The composition root of the API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.types import ControllerRouterHandler

from tailrace.api import apps, cancel, health, history, page, streams
from tailrace.api.auth import BearerAuthentication
from tailrace.api.body import json_only
from tailrace.api.indexes import Indexes
from tailrace.api.problems import respond
from tailrace.api.query import each_once
from tailrace.api.schema import openapi
from tailrace.api.services import Services, provide_services
from tailrace.api.session import well_formed
from tailrace.eventlog import EventLog
from tailrace.jobs import Jobs
from tailrace.live import Live
from tailrace.messages import Messages
from tailrace.mongo import connect
from tailrace.reaper import reaping
from tailrace.recovery import Recovery
from tailrace.runs import Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.tokens import Verifier

__all__ = ["create_app"]


def create_app(settings: Settings) -> Litestar:
    """The API of `settings`; it connects when it starts up, and starts up without a database too.

    Raises `SettingError` without exactly one way to check tokens.
    """
    verifier = Verifier.from_settings(settings)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with _services(settings) as services:
            app.state.services = services
            yield

    handlers: list[ControllerRouterHandler] = [
        *health.handlers,
        *page.handlers,
        *apps.handlers,
        *history.handlers,
        *streams.handlers,
        *cancel.handlers,
    ]
    return Litestar(
        route_handlers=handlers,
        lifespan=[lifespan],
        dependencies={"services": Provide(provide_services)},
        middleware=[DefineMiddleware(BearerAuthentication, verifier=verifier)],
        guards=[well_formed, each_once, json_only],
        exception_handlers={Exception: respond},
        request_max_body_size=settings.max_body_bytes,
        openapi_config=openapi(),
        logging_config=None,  # the process that serves the app sets up logging
        debug=False,  # said here, or LITESTAR_DEBUG in the environment would show tracebacks to clients
        pdb_on_exception=False,
    )


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    async with connect(settings) as database:
        log = EventLog(database, retention_seconds=settings.retention_seconds)
        jobs = Jobs(settings)
        indexes = Indexes(database)
        sessions = Sessions(database)
        live = Live(log, owners=sessions.owners, keep_alive_seconds=settings.keep_alive_seconds)
        try:
            async with indexes.kept(), reaping(settings, database, jobs, readers=live.sessions), live:
                yield Services(
                    settings=settings,
                    database=database,
                    indexes=indexes,
                    log=log,
                    runs=Runs(database),
                    messages=Messages(database),
                    sessions=sessions,
                    jobs=jobs,
                    recovery=Recovery(settings, database, jobs),
                    live=live,
                )
        finally:
            jobs.close()
