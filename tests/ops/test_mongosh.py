"""Each recipe in ops/mongosh, run as its first comment says by the real mongosh on the data of real runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.stack import Reader, Stack, eventually
from tests.ops.compose import ROOT
from tests.ops.deployment import Deployment

from tailrace.mongo import INDEXES

RECIPES = sorted(path.stem for path in (ROOT / "ops/mongosh").glob("*.js"))
TRACE = "0af7651916cd43dd8448eb211c80319c"
LEFT = "elsewhere"  # a database that no API looks after: what hangs there goes on hanging


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A session in which one run succeeded and one failed."""

    session: str
    owner: str
    run: str  # that succeeded
    failed: str
    events: int  # of both


async def tell(deployment: Deployment, session: str, prompt: str, owner: str) -> str:
    reader = Reader(cast(Stack, deployment), session, user=owner)
    await reader.generate(prompt)
    return str(reader.events[-1].json["run_id"])


@pytest.fixture(scope="module")
def told(deployment: Deployment) -> Told:
    """The runs are real; the trace is written to them, for none is made without Langfuse."""
    owner, session = f"user-{uuid4().hex[:8]}", f"s-{uuid4().hex[:12]}"
    run = asyncio.run(tell(deployment, session, "What is 6 * 7?", owner))
    failed = asyncio.run(tell(deployment, session, "Please fail.", owner))
    with MongoClient[dict[str, Any]](deployment.settings.mongodb_url) as client:
        database = client["tailrace"]
        for collection in ("events", "messages"):
            database[collection].update_many(
                {"session_id": session, "run_id": run}, {"$set": {"trace_id": TRACE}}
            )
        events = database["events"].count_documents({"session_id": session})
    return Told(session=session, owner=owner, run=run, failed=failed, events=events)


@pytest.fixture(scope="module")
def left(deployment: Deployment) -> None:
    """A run whose worker and API are gone: its lease has run out, and nobody takes it over."""
    with MongoClient[dict[str, Any]](deployment.root_url()) as root:
        runs = root[LEFT]["runs"]
        runs.create_indexes(list(INDEXES["runs"]))
        lost = {"_id": "r", "session_id": "lost", "state": "running", "active": True, "attempt": 2}
        lease = {"lease_expires_at": {"$subtract": ["$$NOW", 60_000]}, "created_at": 1.0e9}
        runs.update_one({"_id": "r"}, [{"$set": lost | lease}], upsert=True)


@contextmanager
def no_table_scans(deployment: Deployment) -> Iterator[None]:
    """mongod refuses a query that no index serves, and says so."""
    with MongoClient[dict[str, Any]](deployment.root_url()) as root:
        root.admin.command("setParameter", 1, notablescan=True)
        try:
            yield
        finally:
            root.admin.command("setParameter", 1, notablescan=False)


@pytest.fixture(scope="module")
def printed(deployment: Deployment, told: Told, left: None) -> Mapping[str, str]:
    """What each recipe printed that ends by itself, all run at once: a mongosh takes a second to start."""
    given: Mapping[str, Mapping[str, str]] = {
        "cost": {"OWNER": told.owner, "INPUT": "1000000", "OUTPUT": "2000000"},
        "hanging": {"MONGODB_DB": LEFT, "url": deployment.root_url()},
        "oplog": {},
        "rate": {"SESSION": told.session},
        "runs": {"SESSION": told.session},
        "slow": {"HOURS": "1"},
        "storage": {},
        "trace": {"TRACE": TRACE},
        "types": {"SESSION": told.session},
    }
    assert {*given, "follow"} == set(RECIPES)
    with no_table_scans(deployment):
        started = {name: deployment.recipe(name, **options) for name, options in given.items()}
        started["all runs"] = deployment.recipe("runs", STATE="error", LIMIT="1000")
        return {name: recipe.finished() for name, recipe in started.items()}


def rows(text: str) -> list[list[str]]:
    """The cells of the tables that `console.table` drew, without their numbering."""
    drawn = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip().strip("'") for cell in line.split("│")[2:-1]] for line in drawn]


def table(text: str) -> list[dict[str, str]]:
    head, *body = rows(text)
    return [dict(zip(head, row, strict=True)) for row in body]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_says_first_what_it_answers_and_how_to_run_it(name: str) -> None:
    text = (ROOT / f"ops/mongosh/{name}.js").read_text(encoding="utf-8")
    assert re.match(r"// [A-Z].*", text)
    assert f'mongosh "$MONGODB_URL" --quiet ops/mongosh/{name}.js' in text.partition("\n\n")[0]


def test_runs_are_listed_with_their_state_newest_first(printed: Mapping[str, str], told: Told) -> None:
    found = table(printed["runs"])
    assert [(run["run"], run["state"]) for run in found] == [(told.failed, "error"), (told.run, "success")]
    assert found[0]["user"] == told.owner
    assert found[0]["error"]
    assert told.failed in {run["run"] for run in table(printed["all runs"])}


def test_slow_runs_are_listed_with_the_middle_of_all(printed: Mapping[str, str], told: Told) -> None:
    assert told.run in {run["run"] for run in table(printed["slow"])}
    assert re.search(r"^ran: median [\d.]+ s, p95 [\d.]+ s, p99 [\d.]+ s$", printed["slow"], re.MULTILINE)


def test_rate_is_tokens_over_seconds(printed: Mapping[str, str], told: Told) -> None:
    (run,) = table(printed["rate"])
    assert run["run"] == told.run
    assert int(run["tokens"]) > 0
    assert float(run["rate"]) == pytest.approx(int(run["tokens"]) / float(run["seconds"]), rel=0.1)
    assert float(run["first"]) > 0


def test_events_are_counted_by_type(printed: Mapping[str, str], told: Told) -> None:
    counted = {row["type"]: int(row["events"]) for row in table(printed["types"])}
    assert counted["finish"] == 2
    assert counted["run_error"] == 1
    assert sum(counted.values()) == told.events


def test_cost_is_tokens_by_session_and_money_by_price(printed: Mapping[str, str], told: Told) -> None:
    (row,) = table(printed["cost"])
    assert row["session"] == told.session
    assert int(row["output"]) > 0
    assert float(row["cost"]) == int(row["input"]) + 2 * int(row["output"])
    assert f"{told.owner}, 30 days: {row['input']} tokens read, {row['output']} written" in printed["cost"]


def test_storage_names_each_collection_and_index(printed: Mapping[str, str]) -> None:
    cells = {cell for row in rows(printed["storage"]) for cell in row}
    names = {index.document["name"] for indexes in INDEXES.values() for index in indexes}
    assert cells >= {*INDEXES, *names, "_id_"}


def test_oplog_tells_its_window_and_each_member(printed: Mapping[str, str]) -> None:
    assert re.match(r"The primary's oplog reaches back \d+\.\d+ h\.", printed["oplog"])
    assert sorted(row["state"] for row in table(printed["oplog"])) == ["PRIMARY", "SECONDARY", "SECONDARY"]


def test_trace_is_found_with_its_run_messages_and_events(printed: Mapping[str, str], told: Told) -> None:
    assert f"run {told.run} of session {told.session}, user {told.owner}" in printed["trace"]
    assert "user: What is 6 * 7?" in printed["trace"]
    assert {"finish", "tool_end"} <= {row["type"] for row in table(printed["trace"])}
    assert told.failed not in printed["trace"]


def test_run_that_nobody_holds_is_told_from_one_that_runs(
    printed: Mapping[str, str], deployment: Deployment
) -> None:
    assert printed["hanging"].startswith("1 active, 0 waiting, 1 that nobody holds")
    (lost,) = table(printed["hanging"])
    assert (lost["run"], lost["attempt"]) == ("r", "2")
    assert float(lost["lease"]) < -59


async def test_session_is_followed_as_it_happens(deployment: Deployment) -> None:
    session = f"s-{uuid4().hex[:12]}"
    following = deployment.recipe("follow", SESSION=session)
    try:
        eventually(lambda: f"following {session}" in following.printed, 90)
        # One run waits behind the other, both are held.
        await asyncio.gather(
            tell(deployment, session, "What is 6 * 7?", "alice"),
            asyncio.to_thread(eventually, lambda: " message_delta " in following.printed, 90),
        )
        eventually(lambda: " finish " in following.printed, 90)
    finally:
        following.end()
    seqs = [int(line.split()[1]) for line in following.printed.splitlines()[1:]]
    assert seqs == list(range(1, len(seqs) + 1))
