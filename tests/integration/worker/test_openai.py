"""Prompts through a real OpenAI-compatible HTTP server, against the offline model's events."""

from __future__ import annotations

import re

import pytest
from tests.integration.worker.openai_server import openai_server
from tests.integration.worker.scene import Scene, only, said, types

from tailrace.events import Event
from tailrace.mongo import Database
from tailrace.settings import Settings

PROMPTS = (
    "hello there",
    "what is 12*(3+4)?",
    "what time is it in Tokyo and Paris?",
    "remember that tea is at four",
    "what did I note?",
    "what is 9**9**9?",
    "write 300 words",
    "what did I say before?",
)
# The provider's client is kept for the process's life; here its event loop ends before that.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
CLOCK = re.compile(r"\d\d:\d\d:\d\d")


def _told(events: list[Event]) -> str:
    """What was said, but for the seconds; the protocol does not carry that a tool's result is an error."""
    return CLOCK.sub("", said(events)).replace("could not do it", "says")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


async def test_the_same_prompts_give_the_same_events(settings: Settings, database: Database) -> None:
    with openai_server() as server:
        offline = Scene(settings, database)
        online = Scene(settings, database, model="gpt-x", model_base_url=server.url)
        online.session_id = "s2"
        for prompt in PROMPTS:
            expected, events = await offline.perform(prompt), await online.perform(prompt)
            assert types(events) == types(expected), prompt
            assert _told(events) == _told(expected)
            assert only(events, "agent_end").data["usage"]["total_tokens"] > 0
        assert all(request["stream"] for request in server.requests)


async def test_an_http_error_is_explained(settings: Settings, database: Database) -> None:
    with openai_server() as server:
        scene = Scene(settings, database, model="llama3:8b", model_base_url=server.url)
        events = await scene.perform("please fail")
        assert only(events, "run_error").data["code"] == "model_error"
        assert "You asked" in only(events, "run_error").data["message"]
        assert server.requests[0]["model"] == "llama3:8b"


async def test_a_server_that_is_not_there_is_named(settings: Settings, database: Database) -> None:
    with openai_server() as server:
        url = server.url
    scene = Scene(settings, database, model="openai:gpt-x", model_base_url=url)
    error = only(await scene.perform("hello"), "run_error").data
    assert (error["code"], error["retryable"]) == ("model_unreachable", True)
