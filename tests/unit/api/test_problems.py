"""Every error is problem details, and none of them shows the inside of the server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.params import JSONBody
from msgspec import Meta
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from tailrace.api.body import json_only
from tailrace.api.problems import MEDIA_TYPE, respond
from tailrace.api.query import each_once
from tailrace.errors import (
    CursorError,
    DocumentDamaged,
    NotYours,
    RunConflict,
    SettingError,
    Unauthorized,
)

MAX_BODY = 2_000_000
JSON = {"content-type": "application/json"}


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    prompt: Annotated[str, Meta(max_length=100_000)] = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


@post("/ask", status_code=200)
async def ask(data: JSONBody[Asked]) -> dict[str, str]:
    return {"prompt": data.prompt}


@get("/fail")
async def fail() -> None:
    raise FAILURE[-1]


FAILURE: list[Exception] = []


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    app = Litestar(
        [ask, fail],
        guards=[each_once, json_only],
        exception_handlers={Exception: respond},
        request_max_body_size=MAX_BODY,
        logging_config=None,
        openapi_config=None,
    )
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test.local") as client:
        yield client


@pytest.mark.parametrize(
    ("error", "status", "members"),
    [
        (Unauthorized(), 401, {}),
        (NotYours(), 404, {"detail": "Not found."}),
        (RunConflict("a" * 32), 409, {"run_id": "a" * 32}),
        (RunConflict(), 409, {}),
        (CursorError("malformed", "no"), 400, {"reason": "malformed"}),
        (CursorError("expired", "gone"), 410, {"reason": "expired"}),
        (AutoReconnect("host:27017"), 503, {}),
        (NetworkTimeout("host:27017"), 503, {}),
        (NotPrimaryError("host:27017"), 503, {}),
        (ServerSelectionTimeoutError("host:27017"), 503, {}),
        (OperationFailure("secret", code=13), 500, {}),
        (DuplicateKeyError("secret"), 500, {}),
        (SettingError("secret"), 500, {}),
        (DocumentDamaged("secret", session_id="s1"), 500, {}),
        (msgspec.ValidationError("secret"), 500, {}),  # of whatever was not the request
        (KeyError("secret"), 500, {}),
    ],
    ids=repr,
)
async def test_an_error_has_its_status(
    api: httpx.AsyncClient, error: Exception, status: int, members: dict[str, str]
) -> None:
    FAILURE.append(error)
    answer = await api.get("/fail")
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE)
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "instance"} <= problem.keys()
    assert members.items() <= problem.items()
    assert "secret" not in answer.text
    assert "27017" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)


async def test_an_error_without_a_meaning_is_logged_once(
    api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    FAILURE.append(ZeroDivisionError("inside"))
    with caplog.at_level(logging.WARNING):
        assert (await api.get("/fail")).status_code == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is FAILURE[-1]


BAD_BODIES: dict[str, bytes] = {
    "no JSON": b"prompt",
    "cut off": b'{"prompt": "a',
    "100,000 levels deep": b'{"metadata": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "100,000 levels deep, never closed": b"[" * 100_000,
    "NaN": b'{"metadata": {"a": NaN}}',
    "Infinity": b'{"metadata": {"a": -Infinity}}',
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "surrogate in UTF-8": b'{"prompt": "\xed\xa0\x80"}',
    "a wrong type": b'{"prompt": 7}',
    "null": b"null",
    "a list": b"[]",
    "empty": b"",
    "an unknown field": b'{"promt": "a"}',
    "a number that no float holds": b'{"prompt": 1e999}',
    "too long a text": b'{"prompt": "' + b"a" * 100_001 + b'"}',
    "NUL": b'{"prompt": "\0"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_body_that_cannot_be_read_is_the_clients_fault(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post("/ask", content=body, headers=JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (400, MEDIA_TYPE), answer.text


async def test_a_refused_field_is_named(api: httpx.AsyncClient) -> None:
    problem = (await api.post("/ask", json={"prompt": 7})).json()
    assert problem["errors"] == [
        {"field": "prompt", "message": "Expected `str`, got `int`", "source": "body"}
    ]
    assert "prompt" in problem["detail"]


async def test_the_last_of_duplicate_keys_counts(api: httpx.AsyncClient) -> None:
    answer = await api.post("/ask", content=b'{"prompt": "a", "prompt": "b"}', headers=JSON)
    assert answer.json() == {"prompt": "b"}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/msgpack",
        "application/json; charset=latin-1",
        "application/json, text/plain",
    ],
)
async def test_a_body_of_another_type_is_refused(api: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await api.post("/ask", content=b'{"prompt": "a"}', headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (415, MEDIA_TYPE)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
async def test_json_is_taken(api: httpx.AsyncClient, content_type: str) -> None:
    answer = await api.post("/ask", content=b'{"prompt": "a"}', headers={"content-type": content_type})
    assert answer.json() == {"prompt": "a"}


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large_a_body_is_refused(api: httpx.AsyncClient, announced: bool) -> None:
    content = b" " * (MAX_BODY + 1)

    async def chunks() -> AsyncIterator[bytes]:  # announces no length
        yield content

    answer = await api.post("/ask", content=content if announced else chunks(), headers=JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (413, MEDIA_TYPE)


async def test_an_unknown_path_is_not_found(api: httpx.AsyncClient) -> None:
    answer = await api.get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert answer.json()["instance"] == "/nowhere"


async def test_another_method_is_told_which_are_allowed(api: httpx.AsyncClient) -> None:
    answer = await api.delete("/ask")
    assert (answer.status_code, answer.headers["content-type"]) == (405, MEDIA_TYPE)
    assert "POST" in answer.headers["allow"]


async def test_a_parameter_given_twice_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.get("/fail?a=1&a=1")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "a", "message": "must be given once", "source": "query"}]
