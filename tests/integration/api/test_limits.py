"""What a user is told who asks for more than one user may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from litestar import Litestar
from tests.integration.api.limited import PER_MINUTE, RUNS, STREAMS, allowed, limited
from tests.records import a_run

from tailrace.api.limits import Limits
from tailrace.api.problems import MEDIA_TYPE
from tailrace.mongo import Database
from tailrace.settings import Settings

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]
ASYNC = {"prefer": "respond-async"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return limited(settings)


async def post(api: Api, headers: dict[str, str], session_id: str = "s1", **body: Any) -> httpx.Response:
    path = f"/api/apps/{session_id}/agent/generate"
    return await api.post(path, json={"prompt": "Hello", **body}, headers={**ASYNC, **headers})


async def test_a_refusal_tells_which_limit_how_many_and_when_again(
    api: Api, bearer: Bearer, database: Database
) -> None:
    answers = [await post(api, bearer("alice"), f"s{nth}") for nth in range(PER_MINUTE + 1)]
    assert [answer.status_code for answer in answers] == [202] * RUNS + [429] * (PER_MINUTE - RUNS + 1)
    assert await database["runs"].count_documents({}) == RUNS

    runs, rate = answers[RUNS], answers[-1]
    assert runs.headers["content-type"] == MEDIA_TYPE
    assert runs.headers["retry-after"] == "5"
    assert runs.headers["ratelimit-policy"] == '"concurrent-runs";q=3;qu="concurrent-requests"'
    assert runs.headers["ratelimit"] == '"concurrent-runs";r=0;t=5'
    problem = runs.json()
    assert problem["type"] == "urn:tailrace:problem:limit"
    assert (problem["limit"], problem["allowed"], problem["retry_after"]) == ("concurrent-runs", 3, 5)
    assert "window" not in problem

    problem = rate.json()
    assert (problem["limit"], problem["allowed"], problem["window"]) == ("runs-per-minute", 6, 60)
    assert rate.headers["retry-after"] == str(problem["retry_after"])
    assert rate.headers["ratelimit-policy"] == '"runs-per-minute";q=6;w=60'


async def test_a_repeat_is_not_counted_and_not_refused(api: Api, bearer: Bearer, app: Litestar) -> None:
    limits: Limits = app.state.services.limits
    headers = {**bearer("alice"), "idempotency-key": "k1"}
    first = await post(api, headers)
    again = [await post(api, headers) for _ in range(PER_MINUTE)]
    assert await allowed([limits.count_run("alice") for _ in range(10)]) == PER_MINUTE - 1
    await limits.take_slot(a_run("x"))
    await limits.take_slot(a_run("y"))
    again.append(await post(api, headers))
    assert {answer.status_code for answer in [first, *again]} == {202}
    assert {answer.json()["run_id"] for answer in again} == {first.json()["run_id"]}
    assert (await post(api, headers, prompt="Another")).status_code == 422
    assert (await post(api, bearer("alice"), "s2")).status_code == 429


async def test_the_same_request_at_once_is_one_run(api: Api, bearer: Bearer, database: Database) -> None:
    headers = {**bearer("alice"), "idempotency-key": "k1"}
    answers = await asyncio.gather(*(post(api, headers) for _ in range(RUNS)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    found = await database["slots"].find_one({"_id": "alice"})
    assert found is not None
    assert [slot["run_id"] for slot in found["slots"]] == [answers[0].json()["run_id"]]


async def test_a_conflict_takes_no_slot(api: Api, bearer: Bearer) -> None:
    assert (await post(api, bearer("alice"))).status_code == 202
    for _ in range(RUNS):
        assert (await post(api, bearer("alice"))).status_code == 409
    assert (await post(api, bearer("alice"), "s2")).status_code == 202


async def test_waiting_runs_count_as_unfinished(api: Api, bearer: Bearer) -> None:
    answers = [await post(api, bearer("alice"), on_conflict="enqueue") for _ in range(RUNS + 1)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]


async def test_no_stream_and_no_run_begins_where_a_stream_too_many_was_asked_for(
    served: Api, bearer: Bearer, app: Litestar, database: Database
) -> None:
    assert (await post(served, bearer("alice"))).status_code == 202
    limits: Limits = app.state.services.limits
    held = [await limits.stream("alice") for _ in range(STREAMS)]
    path = "/api/apps/s1/agent/stream-continue"
    answer = await served.get(path, headers=bearer("alice"))
    assert (answer.status_code, answer.json()["limit"]) == (429, "concurrent-streams")
    assert answer.headers["retry-after"] == "5"
    body = {"prompt": "Hello"}
    refused = await served.post("/api/apps/s2/agent/generate", json=body, headers=bearer("alice"))
    assert (refused.status_code, refused.json()["limit"]) == (429, "concurrent-streams")
    assert await database["runs"].count_documents({"session_id": "s2"}) == 0
    held.pop().close()
    replay = await served.get(path, params={"follow": "none"}, headers=bearer("alice"))
    assert replay.status_code == 200
    assert "run_queued" in replay.text
    await limits.stream("alice")  # that of the replay has ended


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x" * 1_001},
        {"prompt": None, "content_parts": [{"type": "text", "text": "x" * 501}] * 2},
    ],
    ids=["prompt", "parts"],
)
async def test_too_long_a_prompt_is_refused(api: Api, bearer: Bearer, body: dict[str, Any]) -> None:
    answer = await post(api, bearer("alice"), **body)
    assert answer.status_code == 400
    assert "at most 1,000 characters" in answer.json()["detail"]


async def test_the_document_describes_the_refusal(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    for path, method in (("generate", "post"), ("stream-continue", "get")):
        responses = document["paths"][f"/api/apps/{{session_id}}/agent/{path}"][method]["responses"]
        assert MEDIA_TYPE in responses["429"]["content"]
