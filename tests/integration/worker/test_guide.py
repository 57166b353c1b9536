"""The guide's agent, as it stands there, and what it says comes of what."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from langchain_core.messages import AIMessage
from tests.integration.worker.scene import Scene, only, types
from tests.unit.worker.models import Says

from tailrace.events import CHANNELS
from tailrace.mongo import Database
from tailrace.settings import Settings
from tailrace_worker.agents import AgentContext, registry

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs/agent_streaming_implementation.md").read_text(encoding="utf-8")
(MODULE,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
(COMMAND,) = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
MODEL = Says(
    messages=[
        AIMessage("", tool_calls=[{"id": "call_1", "name": "find_orders", "args": {"text": "shoes"}}]),
        AIMessage("That is it."),
    ]
)


def scripted(context: AgentContext) -> Any:
    """The guide's agent with a model that calls its tool."""
    return sys.modules["my_agents"].build(msgspec.structs.replace(context, model=MODEL))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "my_agents.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_agents", raising=False)
    return importlib.import_module("my_agents")


@pytest.mark.usefixtures("module")
async def test_the_guides_agent_tells_what_its_table_says(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database, agents=f"support={__name__}:scripted")
    for nth in range(2):
        await database["my_orders"].insert_one({"user": "alice", "text": "shoes", "number": f"A-{nth}"})
    events = await scene.perform("where are my shoes?", agent="support")
    assert events[-1].data["status"] == "success"
    assert types(events) == [
        *("agent_start", "message_complete"),
        *("message_start", "tool_args_delta", "message_complete", "tool_start"),
        *("tool_progress", "custom", "tool_end", "message_complete"),
        *("message_start", "message_delta", "message_complete", "agent_end", "finish"),
    ]
    assert only(events, "tool_progress").data["progress"] == "looking"
    assert only(events, "custom").data["value"]["orders"] == ["A-0", "A-1"]
    assert only(events, "tool_end").data["output"] == "A-0, A-1"


@pytest.mark.usefixtures("module")
async def test_the_model_reads_the_guides_tool_exception(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database, agents=f"support={__name__}:scripted")
    events = await scene.perform("where are my shoes?", agent="support")
    assert only(events, "tool_end").data["output"] == "No order contains 'shoes'."
    assert events[-1].data["status"] == "success"


def test_the_guides_command_names_the_agent() -> None:
    named = re.search(r'TAILRACE_AGENTS="([^"]+)" tailrace worker', COMMAND)
    assert named
    assert registry(Settings(agents=named[1]))["support"] == "my_agents:build"


def test_the_guide_speaks_of_event_types_that_there_are() -> None:
    table = GUIDE.partition("## What comes of what")[2].partition("\n\nA model that")[0]
    rows = re.findall(r"^\| .* \| (.*) \|$", table, re.MULTILINE)[1:]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"messages"}
    given = {"run_queued", "attempt_superseded", "input_requested", "input_responded"}  # no agent's
    assert told == CHANNELS.keys() - given
