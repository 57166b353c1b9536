"""What replica-set-compose.yml starts, as local processes: streams through the proxy, users, health."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, cast
from uuid import uuid4

import httpx
import msgspec
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import Redis
from redis.exceptions import AuthenticationError
from tests.e2e.stack import Reader, Stack, eventually, until
from tests.ops.deployment import APIS, Deployment


def session() -> str:
    return f"s-{uuid4().hex[:12]}"


async def start_run(deployment: Deployment, session_id: str, prompt: str) -> httpx.Response:
    path = f"/api/apps/{session_id}/agent/generate"
    async with deployment.client() as client:
        return await client.post(path, json={"prompt": prompt}, headers={"Prefer": "respond-async"})


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_run_streams_token_by_token_through_the_proxy(deployment: Deployment, http2: bool) -> None:
    path = f"/api/apps/{session()}/agent/generate"
    events: list[tuple[float, dict[str, Any]]] = []
    async with (
        deployment.client(http2=http2) as client,
        client.stream("POST", path, json={"prompt": "Write 40 words."}) as answer,
    ):
        assert answer.status_code == httpx.codes.OK
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.headers["x-accel-buffering"] == "no"
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                events.append((time.time(), msgspec.json.decode(line.removeprefix("data:"))))
    assert events[-1][1]["event_type"] == "finish"
    # One machine has one clock. A proxy that buffers keeps the first events until it has 4 KiB, which is some
    # ten of them, and hands later ones over together.
    deltas = [(at, event) for at, event in events if event.get("event_type") == "message_delta"]
    assert len(deltas) > 30
    queued_at = next(at for at, event in events if event.get("event_type") == "run_queued")
    assert queued_at < deltas[4][1]["timestamp"]
    for (at, _), (_, later) in itertools.pairwise(deltas[:: len(deltas) // 4]):
        assert at < later["timestamp"]


async def test_killed_api_behind_the_proxy_costs_its_readers_nothing(deployment: Deployment) -> None:
    session_id = session()
    await start_run(deployment, session_id, "Write 120 words.")
    readers = [Reader(cast(Stack, deployment), session_id) for _ in range(4)]

    async def read(reader: Reader) -> None:
        await reader.read_through(lambda: any(frame.event == "finish" for frame in reader.frames))

    async def progress() -> None:
        told = [len(reader.events) for reader in readers]
        await until(lambda: all(len(r.events) > n + 5 for r, n in zip(readers, told, strict=True)))

    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(read(reader))
        await progress()
        deployment.kill("api1")
        # What finds it dead goes to the other, a POST as well.
        posted = await asyncio.gather(*(start_run(deployment, session(), "What is 6 * 7?") for _ in range(6)))
        assert {answer.status_code for answer in posted} == {httpx.codes.ACCEPTED}
        await progress()
        deployment.restart("api1")
        await asyncio.to_thread(eventually, lambda: deployment.serves("api1"), 90)
    whole = list(range(1, readers[0].seqs[-1] + 1))
    assert [reader.seqs for reader in readers] == [whole] * len(readers)
    # By `least_conn` the dead one had half of them.
    connections = [len(reader.statuses) for reader in readers]
    assert sorted(connections)[:1] == [1]
    assert max(connections) > 1
    assert {status for reader in readers for status in reader.statuses} == {httpx.codes.OK}


def test_plain_http_is_sent_to_https_and_metrics_stay_inside(deployment: Deployment) -> None:
    answer = deployment.get("/api/apps?limit=1", "http")
    assert answer.status_code == httpx.codes.PERMANENT_REDIRECT
    assert answer.headers["location"] == "https://127.0.0.1/api/apps?limit=1"
    assert deployment.get("/metrics").status_code == httpx.codes.NOT_FOUND
    for name in APIS:
        inside = httpx.get(f"http://127.0.0.1:{deployment.port(f'{name}:8000')}/metrics", trust_env=False)
        assert inside.status_code == httpx.codes.OK
    assert deployment.get("/healthz").status_code == httpx.codes.OK


def test_initiating_once_more_changes_nothing(deployment: Deployment) -> None:
    printed = deployment.initiate().strip()
    assert printed.startswith("rs0 stands: ")
    assert "\n" not in printed


def test_databases_refuse_who_has_no_password(deployment: Deployment) -> None:
    members = [f"127.0.0.1:{deployment.port(f'mongo{n}:27017')}" for n in (1, 2, 3)]
    with (
        MongoClient[dict[str, Any]](members, replicaSet="rs0") as stranger,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        stranger["tailrace"]["runs"].find_one()
    with MongoClient[dict[str, Any]](deployment.settings.mongodb_url) as own:
        assert {f"{host}:{port}" for host, port in own.nodes or ()} <= set(members)
        own["tailrace"]["runs"].find_one()
        assert own.admin.command("serverStatus", oplog=1)["oplog"]["latestOptime"]
        with pytest.raises(OperationFailure, match="not authorized"):
            own["another"]["runs"].find_one()
    port = deployment.port("valkey:6379")
    with Redis(port=port) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()
    with Redis.from_url(deployment.settings.redis_url) as own_redis:
        assert own_redis.config_get("appendonly") == {"appendonly": "yes"}


def test_election_is_as_quick_as_was_measured(deployment: Deployment) -> None:
    root = deployment.secret("mongo_root_password").read_text().strip()
    with MongoClient[dict[str, Any]](
        port=deployment.port("mongo1:27017"), directConnection=True, username="root", password=root
    ) as admin:
        config = admin.admin.command("replSetGetConfig")["config"]
    assert config["settings"]["electionTimeoutMillis"] == 2_000
    assert config["settings"]["heartbeatIntervalMillis"] == 500
    assert [member["votes"] for member in config["members"]] == [1, 1, 1]


@pytest.mark.parametrize("service", ["api1", "worker", "rq-dashboard"])
def test_health_check_says_yes_of_what_runs_and_no_of_what_does_not(
    deployment: Deployment, service: str
) -> None:
    assert deployment.healthy(service).returncode == 0
    elsewhere = {
        "TAILRACE_PORT": "9",
        "TAILRACE_QUEUE": "a-queue-that-nobody-serves",
    }
    if service != "rq-dashboard":
        assert deployment.healthy(service, **elsewhere).returncode == 1


def test_dashboard_shows_the_queue(deployment: Deployment) -> None:
    url = f"http://127.0.0.1:{deployment.port('rq-dashboard:9181')}"
    queues = httpx.get(f"{url}/0/data/queues.json", trust_env=False).json()["queues"]
    assert [queue["name"] for queue in queues] == [deployment.settings.queue]


def test_worker_shows_its_metrics(deployment: Deployment) -> None:
    url = f"http://127.0.0.1:{deployment.port('worker:9100')}/metrics"
    answer = eventually(lambda: httpx.get(url, trust_env=False))
    assert answer.status_code == httpx.codes.OK
    assert "tailrace_" in answer.text
