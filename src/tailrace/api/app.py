"""The composition root of the API process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.types import ControllerRouterHandler

from tailrace.api import apps, cancel, health, history, metrics, page, streams
from tailrace.api.auth import BearerAuthentication
from tailrace.api.body import BodyReader, json_only
from tailrace.api.figures import Figures
from tailrace.api.indexes import Indexes
from tailrace.api.limits import Limits
from tailrace.api.problems import respond
from tailrace.api.query import each_once
from tailrace.api.schema import openapi
from tailrace.api.services import Services, provide_services
from tailrace.api.session import well_formed
from tailrace.archive import ArchivedLog, ObjectStore
from tailrace.archive.passes import Passes
from tailrace.erasure import Erasure
from tailrace.eventlog import EventLog
from tailrace.jobs import Jobs
from tailrace.live import Live
from tailrace.logs import bind
from tailrace.messages import Messages
from tailrace.mongo import Database, connect
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
        *(metrics.handlers if settings.metrics else ()),
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
        middleware=[
            DefineMiddleware(BearerAuthentication, verifier=verifier),
            DefineMiddleware(BodyReader, max_bytes=settings.max_body_bytes),
        ],
        before_request=_about,
        guards=[well_formed, each_once, json_only],
        exception_handlers={Exception: respond},
        request_max_body_size=settings.max_body_bytes,
        openapi_config=openapi(),
        logging_config=None,  # the process that serves the app sets up logging
        debug=False,  # said here, or LITESTAR_DEBUG in the environment would show tracebacks to clients
        pdb_on_exception=False,
    )


async def _about(request: Request[Any, Any, Any]) -> None:
    # A task of its own serves each request: its log lines, and those of its stream, carry these.
    bind(session_id=request.path_params.get("session_id"), run_id=request.path_params.get("run_id"))


@asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    async with connect(settings) as database:
        store = ObjectStore.of(settings)
        log = _log(settings, database, store)
        jobs = Jobs(settings)
        indexes = Indexes(database)
        sessions = Sessions(database)
        runs = Runs(database)
        erasure = Erasure(settings, database, jobs, elsewhere=[store.delete_session] if store else [])
        live = Live(log, owners=sessions.owners, keep_alive_seconds=settings.keep_alive_seconds)
        try:
            async with (
                Limits(settings, database).kept() as limits,
                indexes.kept(),
                reaping(settings, database, jobs, readers=live.sessions),
                erasure.kept(),
                live,
            ):
                yield Services(
                    settings=settings,
                    database=database,
                    indexes=indexes,
                    log=log,
                    runs=runs,
                    messages=Messages(database),
                    sessions=sessions,
                    jobs=jobs,
                    recovery=Recovery(settings, database, jobs),
                    erasure=erasure,
                    live=live,
                    limits=limits,
                    figures=Figures(live, runs, jobs, Passes(database) if store else None),
                )
        finally:
            jobs.close()
            if store:
                store.close()


def _log(settings: Settings, database: Database, store: ObjectStore | None) -> EventLog:
    kept = settings.retention_seconds
    if store is None:
        return EventLog(database, retention_seconds=kept)
    return ArchivedLog(database, store, retention_seconds=kept)
