"""What a request may say, and in which words it is told that it may not."""

from __future__ import annotations

import httpx
import pytest
from tests.integration.api.conftest import Bearer

from tailrace.mongo import Database
from tailrace.settings import Settings
from tailrace.tokens import mint

GENERATE, CONTINUE = "/api/apps/s1/agent/generate", "/api/apps/s1/agent/stream-continue"

Api = httpx.AsyncClient


async def test_preferences_may_stand_on_several_lines(api: Api, bearer: Bearer) -> None:
    for preferences in (("respond-async", "wait=10"), ("wait=10", "respond-async")):
        headers = [*bearer("alice").items(), *(("Prefer", each) for each in preferences)]
        body = {"prompt": "Hello", "on_conflict": "enqueue"}
        answer = await api.post(GENERATE, json=body, headers=headers)
        assert (answer.status_code, answer.json()["session_id"]) == (202, "s1")


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [("GET", CONTINUE, "Last-Event-ID"), ("POST", GENERATE, "Idempotency-Key")],
)
async def test_a_header_that_says_two_things_is_refused_by_name(
    api: Api, bearer: Bearer, method: str, path: str, name: str
) -> None:
    body = {"prompt": "Hello"} if method == "POST" else None
    headers = [*bearer("alice").items(), (name, "s1:1"), (name, "s1:2")]
    answer = await api.request(method, path, json=body, headers=headers)
    told = {"field": name, "message": "must be given once", "source": "header"}
    assert (answer.status_code, answer.json()["errors"]) == (400, [told])


async def test_a_header_may_be_doubled_on_the_way(api: Api, bearer: Bearer) -> None:
    doubled = [("Idempotency-Key", "k"), ("Idempotency-Key", "k"), ("Prefer", "respond-async")]
    headers = [*bearer("alice").items(), *doubled]
    answers = [await api.post(GENERATE, json={"prompt": "Hello"}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["run_id"] == answers[1].json()["run_id"]


async def test_a_prompt_without_a_body_is_told_what_to_give(api: Api, bearer: Bearer) -> None:
    answer = await api.post(GENERATE, headers=bearer("alice"))
    told = {"field": "body", "message": "is missing: give a JSON object with a prompt", "source": "body"}
    assert (answer.status_code, answer.json()["errors"]) == (400, [told])


async def test_events_are_kept_for_as_long_as_their_run_may_take(
    api: Api, settings: Settings, database: Database
) -> None:
    for claim, kept in ((60.0, settings.run_timeout_seconds + 60), (86_400.0, 86_400.0), (None, None)):
        token = mint(settings, user="alice", retention_seconds=claim)
        headers = {"Authorization": f"Bearer {token}", "Prefer": "respond-async"}
        path = f"/api/apps/kept-{claim or 0:.0f}/agent/generate"
        run_id = (await api.post(path, json={"prompt": "Hello"}, headers=headers)).json()["run_id"]
        run = await database["runs"].find_one({"_id": run_id}) or {}
        assert run.get("retention_seconds") == kept


async def test_a_bad_timestamp_is_told_what_a_good_one_is(api: Api, bearer: Bearer) -> None:
    answer = await api.get(CONTINUE, params={"since_timestamp": "1e3"}, headers=bearer("alice"))
    why = "must be Unix seconds in decimal digits, such as 1763800000.25"
    told = {"field": "since_timestamp", "message": why, "source": "query"}
    assert (answer.status_code, answer.json()["errors"]) == (400, [told])
