"""The reference pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tailrace.api.app import create_app
from tailrace.cli import main
from tailrace.events import CHANNELS
from tailrace.settings import Settings

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs/reference/wire-protocol.md").read_text(encoding="utf-8")


def test_every_event_type_is_documented_with_its_channel() -> None:
    documented: dict[str, str] = {}
    for types, channel in re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| (`\w+`|the same) \|", PROTOCOL, re.MULTILINE
    ):
        for name in re.findall(r"\w+", types):
            documented[name] = name if channel == "the same" else channel.strip("`")
    assert documented == dict(CHANNELS)


def test_every_route_is_documented() -> None:
    app = create_app(Settings(jwt_secret="only-for-the-tests-of-this-repository"))
    served = {
        (method, re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path))
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method not in ("OPTIONS", "HEAD") and not route.path.startswith("/schema")
    }
    documented = set(re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", PROTOCOL))
    assert served <= {(method, path.rstrip("/") or "/") for method, path in documented}, served - documented


def test_every_type_of_problem_is_documented() -> None:
    code = (ROOT / "src/tailrace/api/problems.py").read_text(encoding="utf-8")
    types = set(re.findall(r"{_URN}([a-z-]+)", code))
    assert types
    assert types == set(re.findall(r"`urn:tailrace:problem:([a-z-]+)` \|", PROTOCOL))


def _pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.name)
def test_commands_and_recipes_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^|[`/] ?|\" )tailrace ([a-z][a-z-]+)", text, re.MULTILINE)
    assert set(named) <= main.commands.keys()
    recipes = re.findall(r"mongosh (?:.*/)?(\w+\.js)", text)
    assert {name for name in recipes if not (ROOT / "ops/mongosh" / name).exists()} == set()


@pytest.mark.parametrize(
    "path", re.findall(r"`(tests/[^`]+)`", (ROOT / "docs/reference/guarantees.md").read_text())
)
def test_the_tests_that_a_guarantee_names_are_there(path: str) -> None:
    assert (ROOT / path).exists()
