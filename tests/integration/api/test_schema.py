"""The OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import httpx
import msgspec
import pytest

from tailrace.api.generate import GenerateRequest
from tailrace.api.problems import MEDIA_TYPE
from tailrace.api.wire import WireEvent
from tailrace.events import CHANNELS, EVENT_TYPES

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]


def test_every_event_type_has_its_schema() -> None:
    assert [kind.__struct_config__.tag for kind in get_args(WireEvent)] == list(EVENT_TYPES)


async def test_the_document_describes_events_and_errors(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    tags = {schema["properties"].get("event_type", {}).get("const") for schema in schemas.values()}
    assert set(EVENT_TYPES) <= tags
    events = document["paths"]["/api/apps/{session_id}/agent/events"]["get"]["responses"]
    assert {"200", "400", "401", "404", "410", "503"} <= events.keys()
    assert MEDIA_TYPE in events["404"]["content"]


async def test_only_health_is_open_in_the_document(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    assert document["security"] == [{"bearer": []}]
    operations = [
        (path, operation) for path, item in document["paths"].items() for operation in item.values()
    ]
    assert {path for path, operation in operations if operation.get("security") == [{}]} == {
        "/healthz",
        "/readyz",
    }


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.json", "/schema/openapi.yaml"])
async def test_the_document_names_no_other_host(api: Api, bearer: Bearer, path: str) -> None:
    answer = await api.get(path, headers=bearer("alice"))
    assert answer.status_code == 200
    assert "://" not in answer.text


async def test_another_path_below_schema_is_a_problem_too(api: Api, bearer: Bearer) -> None:
    answer = await api.get("/schema/swagger", headers=bearer("alice"))
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)


async def test_references_in_the_document_lead_somewhere(api: Api, bearer: Bearer) -> None:
    text = (await api.get("/schema/openapi.json", headers=bearer("alice"))).text
    schemas = json.loads(text)["components"]["schemas"]
    for part in text.split('"$ref":"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas


async def test_the_document_describes_the_frames_of_a_stream(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    schemas, paths = document["components"]["schemas"], document["paths"]
    stream = paths["/api/apps/{session_id}/agent/stream-continue"]["get"]["responses"]
    frames = stream["200"]["content"]["text/event-stream"]["schema"]["oneOf"]
    assert {frame["$ref"].rpartition("/")[2] for frame in frames} == {"EventFrame", "ControlFrame"}
    assert set(schemas["EventFrame"]["properties"]["event"]["enum"]) == set(CHANNELS.values())
    data = schemas["EventFrame"]["properties"]["data"]
    assert data["contentSchema"] == schemas["EventPage"]["properties"]["events"]["items"]
    assert "content" not in stream["204"]


async def test_the_document_says_what_starting_a_run_takes_and_answers(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    generate = document["paths"]["/api/apps/{session_id}/agent/generate"]["post"]
    assert {"200", "202", "409", "422"} <= generate["responses"].keys()
    names = {parameter["name"] for parameter in generate["parameters"]}
    assert names == {"session_id", "Idempotency-Key", "Prefer"}
    asked = document["components"]["schemas"]["GenerateRequest"]
    assert asked["additionalProperties"] is False
    assert [choice["required"] for choice in asked["oneOf"]] == [["prompt"], ["content_parts"]]
    again = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    assert again == document


@pytest.mark.parametrize("field", ["agent", "on_disconnect"])
def test_a_name_with_a_newline_at_its_end_is_none(field: str) -> None:
    good = {"agent": "default", "on_disconnect": "cancel"}
    assert msgspec.convert({"prompt": "a", **good}, GenerateRequest).agent == "default"
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({"prompt": "a", **good, field: f"{good[field]}\n"}, GenerateRequest)
