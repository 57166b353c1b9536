"""`tailrace dev`: MongoDB, Valkey, the API and the workers in one terminal, ended together."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec

from tailrace.child import Child, free_port
from tailrace.dashboard import dashboard, ensure_installed
from tailrace.devserver import DEV_USER, DevServer, held
from tailrace.embedded import Mongod, Valkey
from tailrace.errors import SettingError, TailraceError
from tailrace.mongo import connect, ensure_indexes
from tailrace.settings import Settings, given, variable
from tailrace.signals import Asked, Signals
from tailrace.supervisor import Supervisor

__all__ = ["child_environ", "dev"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MONGOD_PORT = 27017
_VALKEY_PORT = 6379
_READY_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0  # between SIGTERM and SIGKILL

Say = Callable[[str], None]


def child_environ(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environ` with `settings` in place of its own, for a child process; a `.env` there changes nothing."""
    # An empty value counts as not set, but wins over the line in `.env`.
    names = [variable(field) for field in settings.__struct_fields__]
    unset = dict.fromkeys([*names, *(f"{name}_FILE" for name in names)], "")
    return {**environ, **unset, **settings.to_env()}


def dev(
    environ: Mapping[str, str],
    *,
    port: int | None,
    data_dir: Path,
    workers: int,
    dashboard_port: int | None,
    say: Say,
) -> None:
    """Run everything until SIGINT or SIGTERM, then end it all: the API, the workers, Valkey, MongoDB.

    `port` None takes that of the settings, or a free one if it is taken. With `dashboard_port` rq-dashboard
    runs there, or on a free port if that is taken. Raises `TailraceError`.
    """
    if dashboard_port is not None:
        ensure_installed()
    settings = Settings.from_env(environ)
    chosen = port is not None or bool(given("port", environ))
    wanted = settings.port if port is None else port
    settings = msgspec.structs.replace(settings, port=_api_port(wanted, chosen=chosen))
    data_dir = data_dir.absolute()
    with held(data_dir), Signals() as signals:
        try:
            _Dev(environ, settings, data_dir, signals, say).run(workers, dashboard_port)
        except Asked:
            say("Stopped.")


def _api_port(wanted: int, *, chosen: bool) -> int:
    port = free_port(wanted)
    if chosen and wanted and port != wanted:
        raise SettingError(f"Port {wanted} is taken. Choose another with --port; --port 0 takes a free one.")
    return port


class _Dev:
    """One run of `tailrace dev`."""

    def __init__(
        self, environ: Mapping[str, str], settings: Settings, data_dir: Path, signals: Signals, say: Say
    ) -> None:
        self._environ = environ
        self._data_dir = data_dir
        self._signals = signals
        self._say = say
        self._supervisor = Supervisor(signals, say)
        self._settings = self._with_secret(settings)

    def run(self, workers: int, dashboard_port: int | None) -> None:
        """Start all, say when it is ready, watch. Leaves by an exception, with nothing left running."""
        with ExitStack() as stack:
            # Last started, first ended.
            self._start_valkey_and_mongod(stack)
            self._say("Making the indexes …")
            asyncio.run(self._make_indexes())
            self._say(f"Starting {workers} worker{'s' if workers > 1 else ''} …")
            self._start(stack, self._worker(workers))
            self._say("Starting the API …")
            api = self._api()
            self._start(stack, api)
            self._wait_until_ready(api)
            self._save(url=self._url)
            if dashboard_port is not None:
                self._start_dashboard(stack, free_port(dashboard_port))
            self._say(f"Tailrace is ready: {self._url}/")
            try:
                self._supervisor.watch()
            except Asked:
                self._say("\nStopping … (once more: at once)")
                raise

    @property
    def _url(self) -> str:
        host = self._settings.host
        shown = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self._settings.port}"

    def _with_secret(self, settings: Settings) -> Settings:
        before = DevServer.load(self._data_dir) or DevServer.made()
        if settings.jwt_secret or settings.jwt_public_key_file or settings.jwt_jwks_file:
            return settings
        return msgspec.structs.replace(settings, jwt_secret=before.jwt_secret or DevServer.made().jwt_secret)

    def _save(self, *, url: str = "") -> None:
        DevServer(
            jwt_secret=self._settings.jwt_secret or "",
            url=url,
            mongodb_url=self._settings.mongodb_url,
            redis_url=self._settings.redis_url,
            pid=os.getpid(),
        ).save(self._data_dir)

    def _start_valkey_and_mongod(self, stack: ExitStack) -> None:
        urls: dict[str, str] = {}
        if not given("mongodb_url", self._environ):
            log = self._log("mongod")
            mongod = Mongod(self._data_dir / "mongo", log=log, port=_MONGOD_PORT)
            urls["mongodb_url"] = self._start_server(stack, "MongoDB", mongod)
        if not given("redis_url", self._environ):
            valkey = Valkey(self._data_dir / "valkey", log=self._log("valkey"), port=_VALKEY_PORT)
            urls["redis_url"] = self._start_server(stack, "Valkey", valkey)
        self._settings = msgspec.structs.replace(self._settings, **urls)
        self._save()

    def _start_server(self, stack: ExitStack, name: str, server: Mongod | Valkey) -> str:
        self._say(f"Starting {name} …")
        stack.callback(lambda: server.stop(hurry=self._hurry))
        server.start(pause=self._signals.pause)
        self._supervisor.add(server.child)
        self._say(f"{name}: {server.url}")
        return server.url

    def _start(self, stack: ExitStack, child: Child) -> None:
        stack.callback(lambda: child.stop(patience=_PATIENCE_SECONDS, hurry=self._hurry))
        child.start()
        self._supervisor.add(child)

    def _hurry(self) -> bool:
        return self._signals.hurry

    def _worker(self, workers: int) -> Child:
        argv = [sys.executable, "-m", "tailrace_worker", "-n", str(workers)]
        # Ctrl-C means now: a run that goes on is begun again at the next start.
        settings = msgspec.structs.replace(self._settings, handover_seconds=0.0)
        environ = child_environ(settings, self._environ)
        return Child("worker", argv, log=self._log("worker"), environ=environ)

    def _api(self) -> Child:
        settings = self._settings
        # Whoever reaches a loopback address is the developer; nobody else may get a token by asking.
        user = DEV_USER if settings.host in _LOOPBACK and settings.jwt_secret else None
        environ = child_environ(msgspec.structs.replace(settings, dev_user=user), self._environ)
        argv = [sys.executable, "-m", "tailrace.cli", "api"]
        return Child("API", argv, log=self._log("api"), environ=environ)

    def _start_dashboard(self, stack: ExitStack, port: int) -> None:
        self._start(
            stack, dashboard(self._settings, port=port, log=self._log("dashboard"), environ=self._environ)
        )
        self._say(f"The queue's dashboard: http://127.0.0.1:{port}/")

    def _log(self, name: str) -> Path:
        return self._data_dir / "logs" / f"{name}.log"

    async def _make_indexes(self) -> None:
        making = asyncio.ensure_future(self._ensure_indexes())
        while not making.done():
            await asyncio.wait({making}, timeout=0.1)
            if self._signals.asked:
                making.cancel()
                await asyncio.wait({making})
                raise Asked
        await making

    async def _ensure_indexes(self) -> None:
        async with connect(self._settings) as database:
            await ensure_indexes(database)

    def _wait_until_ready(self, api: Child) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if not api.running:
                raise TailraceError(f"The {api.obituary()}")
            if time.monotonic() > deadline:
                raise TailraceError(f"The API is not ready after {_READY_SECONDS:.0f} s; see {api.log}")
            self._signals.pause(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._url}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
