"""Who may see what: every route, with every kind of token but the owner's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from tests.records import a_run

from tailrace.api.problems import MEDIA_TYPE
from tailrace.mongo import Database
from tailrace.runs import Runs, new_run_id
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.tokens import mint

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]

OPEN = {"/", "/healthz", "/metrics", "/readyz", "/dev/token", "/ui/{file_path:path}"}
RUN_ID = new_run_id()
BODY = {"json": {"prompt": "mine?"}}


@pytest.fixture
async def bobs(database: Database) -> None:
    """Bob's session `s1` with a run."""
    await Sessions(database).claim("s1", "bob", title="secret")
    run = a_run(run_id=RUN_ID, user="bob", state="success", active=False, prompt="secret")
    await Runs(database).create(run)


def routes(app: Litestar, *, session_id: str = "s1") -> list[tuple[str, str]]:
    """Method and path of every route of the app that is not open."""
    found: list[tuple[str, str]] = []
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path not in OPEN:
            path = route.path.replace("{session_id:str}", session_id).replace("{run_id:str}", RUN_ID)
            path = path.replace("{path:str}", "openapi.json")
            found += [(str(method), path) for method in route.methods]
    assert ("GET", f"/api/apps/{session_id}/agent/events") in found
    return found


async def test_anothers_session_is_the_same_as_none(
    app: Litestar, api: Api, bearer: Bearer, bobs: None
) -> None:
    of_bob = [route for route in routes(app) if "/s1/" in route[1] and route[0] != "OPTIONS"]
    for method, path in of_bob:
        body: dict[str, Any] = BODY if method == "POST" else {}
        answer = await api.request(method, path, headers=bearer("alice"), **body)
        assert answer.status_code == 404, (method, path, answer.text)
        assert "secret" not in answer.text
        if method == "GET":
            missing = await api.get(path.replace("/s1/", "/s9/"), headers=bearer("alice"))
            assert missing.text.replace("/s9/", "/s1/") == answer.text


def _without(settings: Settings) -> dict[str, list[tuple[str, str]]]:
    token = mint(settings, user="bob", seconds=60)
    now = int(time.time())
    claims: dict[str, Any] = {"sub": "bob", "aud": "tailrace", "iss": "tailrace", "exp": now + 60}

    def signed(algorithm: str = "HS256", key: str = str(settings.jwt_secret), **changes: Any) -> str:
        return "Bearer " + jwt.encode({**claims, **changes}, key, algorithm=algorithm)

    values = {
        "empty": "",
        "scheme alone": "Bearer",
        "scheme and space": "Bearer ",
        "another scheme": f"Basic {token}",
        "no scheme": token,
        "two tokens": f"Bearer {token} {token}",
        "two tokens in a list": f"Bearer {token}, Bearer {token}",
        "cut off": f"Bearer {token[:-3]}",
        "not ASCII": "Bearer é.é.é",
        "expired": signed(exp=now - 60),
        "not yet valid": signed(nbf=now + 60),
        "another audience": signed(aud="other"),
        "another issuer": signed(iss="other"),
        "alg none": signed("none", ""),
        "another secret": signed(key="another secret of thirty-two bytes"),
    }
    return {
        "none": [],
        "two headers": [("authorization", f"Bearer {token}")] * 2,
        **{name: [("authorization", value)] for name, value in values.items()},
    }


async def test_no_route_but_the_open_ones_serves_a_request_without_a_valid_token(
    app: Litestar, api: Api, settings: Settings, bobs: None
) -> None:
    for name, headers in _without(settings).items():
        raw = [(key.encode(), value.encode("latin-1")) for key, value in headers]
        for method, path in routes(app):
            body: dict[str, Any] = BODY if method == "POST" else {}
            answer = await api.request(method, path, headers=raw, **body)
            assert answer.status_code == 401, (name, method, path, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert answer.headers["content-type"] == MEDIA_TYPE


async def test_a_token_in_the_query_is_none(api: Api, settings: Settings) -> None:
    assert (await api.get("/api/apps", params={"token": mint(settings, user="bob")})).status_code == 401


BAD_SESSION_IDS = {
    "operator": "$gt",
    "dot": "a.b",
    "dots": "%2e%2e",
    "dots and slash": "%2e%2e%2f",
    "NUL": "%00",
    "space": "a%20b",
    "newline": "s1%0A",
    "look-alike": "ѕ1",
    "full-width": "ｓ１",
    "right-to-left mark": "s1%E2%80%8F",
    "not UTF-8": "%ff",
    "65 characters": "a" * 65,
    "10 KB": "a" * 10_240,
    "colon": "s1:1",
}


@pytest.mark.parametrize("session_id", BAD_SESSION_IDS.values(), ids=BAD_SESSION_IDS.keys())
async def test_a_session_id_that_cannot_be_one_is_refused(api: Api, bearer: Bearer, session_id: str) -> None:
    answer = await api.get(f"/api/apps/{session_id}/agent/runs", headers=bearer("alice"))
    assert answer.status_code in (400, 404), answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    if "%2e" not in session_id:  # httpx resolves dots before it asks
        assert answer.json()["errors"][0]["field"] == "session_id"


async def test_an_empty_session_id_is_not_found(api: Api, bearer: Bearer) -> None:
    assert (await api.get("/api/apps//agent/runs", headers=bearer("alice"))).status_code == 404
