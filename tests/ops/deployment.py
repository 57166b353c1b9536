"""The topology of replica-set-compose.yml as processes of this machine, from the same files and settings.

Only addresses, ports and directories are put in for those of the containers.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from tests.e2e.stack import eventually
from tests.ops.compose import ROOT, Compose, stage_of
from tests.ops.recipe import Recipe

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.embedded import Mongod, Valkey
from tailrace.settings import Settings
from tailrace.tokens import mint

__all__ = ["Deployment", "needed"]

MONGODS = ("mongo1", "mongo2", "mongo3")
APIS = ("api1", "api2")
TOKENS_PER_SECOND = "25"


def needed(tool: str) -> str:
    """The path of a tool that pip does not install; skips without it, but not in CI, which installs it."""
    local = ROOT / ".venv/mongosh/node_modules/.bin" / tool
    path = str(local) if local.exists() else shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
    return path


class Deployment:
    """Every service of the compose file that Tailrace needs, by name."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.compose = Compose()
        self._mongosh, self._nginx = needed("mongosh"), needed("nginx")
        self._ports = {f"{name}:27017": free_port() for name in MONGODS}
        self._ports |= {f"{name}:8000": free_port() for name in APIS}
        self._ports |= {
            "valkey:6379": free_port(),
            "worker:9100": free_port(),
            "rq-dashboard:9181": free_port(),
        }
        self.http_port, self.https_port = free_port(), free_port()
        self.children: dict[str, Child] = {}
        self._make_secrets()
        self.settings = Settings.from_env(self.environ("api1"))

    @property
    def url(self) -> str:
        """Where the proxy is, without a slash at the end."""
        return f"https://127.0.0.1:{self.https_port}"

    def port(self, address: str) -> int:
        """The port of this machine that stands for `service:port`."""
        return self._ports[address]

    def secret(self, name: str) -> Path:
        """The file of a secret."""
        return self.place / "secrets" / self.compose.secrets()[name]

    def put_in(self, text: str, service: str = "") -> str:
        """`text` with this machine's addresses, ports and paths for those of the containers."""
        for address, port in self._ports.items():
            text = text.replace(address, f"127.0.0.1:{port}")
        text = re.sub(r"/run/secrets/(\w+)", lambda found: str(self.secret(found[1])), text)
        for inside, outside in self.compose.mounted(service).items() if service else ():
            text = text.replace(inside, str(outside))
        return text

    def environ(self, service: str) -> dict[str, str]:
        """The environment of a service's process: the compose file's, and no setting of this machine's."""
        given = {name: self.put_in(text) for name, text in self.compose.environment(service).items()}
        if "TAILRACE_HOST" in given:
            given["TAILRACE_HOST"] = "127.0.0.1"
        if service in APIS:
            given["TAILRACE_PORT"] = str(self.port(f"{service}:8000"))
        if service == "worker":
            given["TAILRACE_WORKER_METRICS_PORT"] = str(self.port("worker:9100"))
            given["TAILRACE_OFFLINE_TOKENS_PER_SECOND"] = TOKENS_PER_SECOND
        if service == "mongo-init":
            given["MONGO_LOCAL"] = f"127.0.0.1:{self.port('mongo1:27017')}"
        return {**child_environ(Settings()), "LC_ALL": "C", **given}

    def start(self) -> None:
        """Start everything in the order that the compose file gives, and wait until it serves."""
        for name in MONGODS:
            self._start_mongod(name)
        self._start_valkey()
        print(self.initiate())
        for name in (*APIS, "worker"):
            self._start(
                name, [str(Path(sys.executable).parent / "tailrace"), *self.compose.command(name)[1:]]
            )
        self._start_nginx()
        self._start_dashboard()
        eventually(lambda: all(map(self.serves, APIS)), 90)
        eventually(self._worker_registered, 90)
        eventually(lambda: self.get("/readyz").status_code == httpx.codes.OK, 60)

    def stop(self) -> None:
        """End everything, by SIGKILL, and print the ends of the logs."""
        for child in reversed(self.children.values()):
            child.kill()
            if child.name not in MONGODS:
                print(f"--- the end of {child.log.name}", *child.tail(30), sep="\n")

    def kill(self, service: str) -> None:
        """Kill -9 one of them."""
        self.children[service].kill()

    def restart(self, service: str) -> None:
        """Start it again."""
        self.children[service].start()

    def serves(self, api: str) -> bool:
        """Whether an API is ready, behind the proxy's back."""
        try:
            url = f"http://127.0.0.1:{self.port(f'{api}:8000')}/readyz"
            return httpx.get(url, timeout=10, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def initiate(self) -> str:
        """Run mongo-init, once more if need be; what it prints."""
        _, *options = self.compose.command("mongo-init")
        argv = [self._mongosh, *(self.put_in(word, "mongo-init") for word in options)]
        return _output(argv, self.environ("mongo-init"))

    def healthy(self, service: str, **other: str) -> subprocess.CompletedProcess[str]:
        """Run the HEALTHCHECK of a service's image, with `other` in its environment."""
        stage = stage_of(self.compose.services[service]["build"]["target"])
        dashboard = f"127.0.0.1:{self.port('rq-dashboard:9181')}"
        words = [
            word.replace("/app/", f"{ROOT}/ops/").replace("127.0.0.1:9181", dashboard)
            for word in stage["HEALTHCHECK"]
        ]
        assert words[0] == "python"
        argv, environ = [sys.executable, *words[1:]], self.environ(service) | other
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)

    def get(self, path: str, scheme: str = "https") -> httpx.Response:
        """Ask the proxy, without a token."""
        port = self.https_port if scheme == "https" else self.http_port
        return httpx.get(
            f"{scheme}://127.0.0.1:{port}{path}", verify=self._trust(), timeout=20, trust_env=False
        )

    def token(self, user: str = "alice") -> str:
        """A bearer token of `user`."""
        return mint(self.settings, user=user)

    @asynccontextmanager
    async def client(
        self, *, user: str = "alice", http2: bool = True, patience: float = 30.0
    ) -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client of the proxy that speaks as `user`."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        async with httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            timeout=patience,
            trust_env=False,
            verify=self._trust(),
            http2=http2,
        ) as client:
            yield client

    def root_url(self) -> str:
        """The database, for the user root."""
        password = self.secret("mongo_root_password").read_text().strip()
        hosts = ",".join(f"127.0.0.1:{self.port(f'{name}:27017')}" for name in MONGODS)
        return f"mongodb://root:{password}@{hosts}/?replicaSet=rs0&authSource=admin"

    def recipe(self, name: str, *, url: str | None = None, **given: str) -> Recipe:
        """Start one of ops/mongosh as its first comment says, by default as Tailrace's own user."""
        file = str(ROOT / f"ops/mongosh/{name}.js")
        argv = [self._mongosh, url or self.settings.mongodb_url, "--quiet", file]
        return Recipe(argv, {**os.environ, **given}, self.place / f"recipe-{uuid4().hex}.txt")

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.secret("tls_crt")))

    def _make_secrets(self) -> None:
        _output([str(ROOT / "ops/secrets.sh"), str(self.place / "secrets")], os.environ)
        for name in ("mongodb_url", "redis_url"):
            file = self.secret(name)
            text = self.put_in(file.read_text())
            file.chmod(0o600)
            file.write_text(text)

    def _worker_registered(self) -> bool:
        with Redis.from_url(self.settings.redis_url) as redis:
            return bool(redis.exists(f"rq:workers:{self.settings.queue}"))

    def _start(self, name: str, argv: list[str], environ: Mapping[str, str] | None = None) -> None:
        log = self.place / f"{name}.log"
        self.children[name] = Child(name, argv, log=log, environ=environ or self.environ(name))
        self.children[name].start()

    def _start_mongod(self, name: str) -> None:
        data, own = self.place / f"{name}.data", self.place / f"{name}.tmp"
        data.mkdir()
        own.mkdir()
        argv = [self.put_in(word, name) for word in self.compose.command(name)]
        assert "--bind_ip_all" in argv
        assert "--dbpath=/data/db" in argv
        changed = {"--bind_ip_all": "--bind_ip=127.0.0.1", "--dbpath=/data/db": f"--dbpath={data}"}
        argv = [changed.get(word, word) for word in argv]
        argv += [f"--port={self.port(f'{name}:27017')}", "--nounixsocket"]
        environ = self.environ(name) | {
            "TMPDIR": str(own),
            "MONGO_KEYFILE": str(self.secret("mongo_keyfile")),
        }
        environ["PATH"] = f"{Path(_binary(Mongod)).parent}:{environ['PATH']}"
        self._start(name, argv, environ)

    def _start_valkey(self) -> None:
        data = self.place / "valkey.data"
        data.mkdir()
        server, *words = (self.put_in(word) for word in self.compose.command("valkey"))
        assert server == "valkey-server"
        argv = [_binary(Valkey), *(str(data) if word == "/data" else word for word in words)]
        self._start("valkey", [*argv, "--port", str(self.port("valkey:6379")), "--bind", "127.0.0.1"])

    def _start_nginx(self) -> None:
        own = self.place / "nginx.tmp"
        own.mkdir()
        text = (ROOT / "ops/nginx/nginx.conf").read_text(encoding="utf-8")
        text = self.put_in(text.replace(" /tmp/", f" {own}/"))
        text = text.replace("listen 8080", f"listen 127.0.0.1:{self.http_port}")
        text = text.replace("listen 8443", f"listen 127.0.0.1:{self.https_port}")
        (own / "nginx.conf").write_text(text)
        _, flag, directives = self.compose.command("proxy")
        directives += (
            " user root;" if os.getuid() == 0 else ""
        )  # else its workers could not enter our directory
        argv = [self._nginx, "-e", "stderr", "-c", str(own / "nginx.conf"), flag, directives]
        _output([*argv[:-2], "-t"], os.environ)
        self._start("proxy", argv)

    def _start_dashboard(self) -> None:
        program, *words = self.compose.command("rq-dashboard")
        changed = {"0.0.0.0": "127.0.0.1", "9181": str(self.port("rq-dashboard:9181"))}
        settings = ROOT / "ops/rq-dashboard/settings.py"
        environ = self.environ("rq-dashboard") | {"RQ_DASHBOARD_SETTINGS": str(settings)}
        binary = str(Path(sys.executable).parent / program)
        self._start("rq-dashboard", [binary, *(changed.get(word, word) for word in words)], environ)


def _binary(kind: type[Mongod | Valkey]) -> str:
    return kind(Path(os.devnull), log=Path(os.devnull)).argv()[0]


def _output(argv: list[str], environ: Mapping[str, str]) -> str:
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout
