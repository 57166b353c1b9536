"""The page, its headers, and the token of the developer's own machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser

import httpx
import msgspec
import pytest
from tests.integration.api.conftest import ready

from tailrace.api.app import create_app
from tailrace.api.page import UI
from tailrace.settings import Settings
from tailrace.tokens import Verifier

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]

LOCAL = {"host": "127.0.0.1:8000"}


@asynccontextmanager
async def asked_from(settings: Settings, peer: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API at a peer's address."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, client=(peer, 50_000))  # type: ignore[arg-type]
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        await ready(app)
        yield client


@pytest.fixture
def dev(settings: Settings) -> Settings:
    """The settings of `tailrace dev`."""
    return msgspec.structs.replace(settings, dev_user="dev")


@pytest.mark.parametrize("path", ["/", "/ui/tailrace.js"])
async def test_the_page_is_open_and_takes_nothing_from_elsewhere(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "//" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


async def test_what_the_page_asks_for_is_there(api: Api) -> None:
    parser = _Sources()
    parser.feed((await api.get("/")).text)
    assert parser.found
    for source in parser.found:
        assert (await api.get(source)).status_code == 200, source


@pytest.mark.parametrize("name", sorted(path.name for path in UI.glob("*.js")))
async def test_a_module_has_a_type_that_browsers_run(api: Api, name: str) -> None:
    answer = await api.get(f"/ui/{name}")
    assert answer.headers["content-type"].partition(";")[0] in ("text/javascript", "application/javascript")


@pytest.mark.parametrize("path", ["", "none.js", "..%2ferrors.py", "%2e%2e/errors.py", "%00", "a" * 5000])
async def test_nothing_beside_the_page_is_served(api: Api, path: str) -> None:
    assert (await api.get(f"/ui/{path}")).status_code == 404


async def test_dev_serves_the_page_of_this_machine_a_token(dev: Settings) -> None:
    async with asked_from(dev, "127.0.0.1") as api:
        for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:80", "[::1]:8000"):
            answer = await api.get("/dev/token", headers={"host": host, "sec-fetch-site": "same-origin"})
            assert answer.status_code == 200, host
            assert answer.headers["cache-control"] == "no-store"
            assert Verifier.from_settings(dev).verify(answer.json()["token"]).user == "dev"


FOREIGN: dict[str, dict[str, str]] = {
    "a rebound name": {"host": "evil.example"},
    "a name that begins alike": {"host": "localhost.evil.example"},
    "a name that ends alike": {"host": "evil-localhost"},
    "an address that begins alike": {"host": "127.0.0.1.evil.example"},
    "a user before the host": {"host": "localhost@evil.example"},
    "another page": {**LOCAL, "sec-fetch-site": "cross-site"},
    "another port's page": {**LOCAL, "sec-fetch-site": "same-site"},
    "behind a proxy": {**LOCAL, "x-forwarded-for": "203.0.113.1"},
    "behind a standard proxy": {**LOCAL, "forwarded": "for=203.0.113.1"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
async def test_nobody_else_gets_the_dev_token(dev: Settings, headers: dict[str, str]) -> None:
    async with asked_from(dev, "127.0.0.1") as api:
        assert (await api.get("/dev/token", headers=headers)).status_code == 404


@pytest.mark.parametrize("peer", ["203.0.113.1", "192.168.0.7", "::ffff:203.0.113.1", "testclient", ""])
async def test_a_peer_elsewhere_gets_no_dev_token(dev: Settings, peer: str) -> None:
    async with asked_from(dev, peer) as api:
        assert (await api.get("/dev/token", headers=LOCAL)).status_code == 404


async def test_there_is_no_dev_token_in_production(settings: Settings) -> None:
    async with asked_from(settings, "127.0.0.1") as api:
        assert (await api.get("/dev/token", headers=LOCAL)).status_code == 404
