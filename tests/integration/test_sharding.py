"""Shard keys, before the real config server and shard of a cluster that lacks its mongos.

No package has a mongos. Its part in `shardCollection` is small: it asks the config server which shard has the
database, and that shard to do it. So do these tests, and what refuses a key is MongoDB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from tests.e2e.stack import eventually

from tailrace.child import Child, free_port
from tailrace.cli import main
from tailrace.embedded import Mongod
from tailrace.mongo import INDEXES, connect
from tailrace.settings import Settings
from tailrace.sharding import KEYS, commands, unsharded

Client = MongoClient[dict[str, Any]]

MAJORITY = {"w": "majority", "wtimeout": 30_000}


class Cluster:
    """A config server and one shard, each a replica set of one."""

    def __init__(self, place: Path) -> None:
        self.children: list[Child] = []
        self.config = self._started(place / "config", "configsvr")
        self.shard = self._started(place / "shard", "shardsvr")
        host = _host(self.shard)
        self.config.admin.command(
            {"_configsvrAddShard": f"shard/{host}", "name": "shard", "writeConcern": MAJORITY}
        )

    def _started(self, place: Path, role: str) -> Client:
        place.mkdir(parents=True)
        server = Mongod(place, log=place.with_suffix(".log"), port=free_port(), cache_gb=0.25)
        name = place.name
        argv = [f"--replSet={name}" if each.startswith("--replSet") else each for each in server.argv()]
        child = Child(role, [*argv, f"--{role}"], log=place.with_suffix(".log"))
        child.start()
        self.children.append(child)
        client: Client = MongoClient("127.0.0.1", server.port, directConnection=True)
        member = {"_id": 0, "host": f"127.0.0.1:{server.port}"}
        config = {"_id": name, "members": [member], **({"configsvr": True} if role == "configsvr" else {})}
        client.admin.command("replSetInitiate", config)
        eventually(lambda: client.admin.command("hello").get("isWritablePrimary"), 60)
        return client

    def database(self, name: str) -> None:
        """Make a database, whose indexes stand and whose collections are not sharded."""
        made = {"_configsvrCreateDatabase": name, "primaryShardId": "shard", "writeConcern": MAJORITY}
        self.config.admin.command(made)
        for collection, indexes in INDEXES.items():
            self.shard[name][collection].create_indexes(list(indexes))

    def shard_collection(self, command: dict[str, Any]) -> None:
        """What a mongos does with the command."""
        database, _, collection = command["shardCollection"].partition(".")
        known = self.config["config"]["databases"].find_one({"_id": database})
        assert known is not None
        self.shard[database].command(
            {
                "_shardsvrCreateCollection": collection,
                "shardKey": command["key"],
                "databaseVersion": known["version"],
                "writeConcern": MAJORITY,
            }
        )

    def keys(self, database: str) -> dict[str, dict[str, Any]]:
        """Each sharded collection's key, as the cluster knows it."""
        found = self.config["config"]["collections"].find({"_id": {"$regex": f"^{database}\\."}})
        return {each["_id"].partition(".")[2]: each["key"] for each in found}

    def close(self) -> None:
        """End it."""
        for client in (self.config, self.shard):
            client.close()
        for child in self.children:
            child.kill()


def _host(client: Client) -> str:
    assert client.address is not None
    return f"{client.address[0]}:{client.address[1]}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.mark.parametrize("ranges", [False, True], ids=["hashed", "ranges"])
def test_the_cluster_takes_each_key_beside_every_index_of_ours(cluster: Cluster, ranges: bool) -> None:
    name = f"sharded_{ranges}".lower()
    cluster.database(name)
    for nth in range(2):  # neither empty nor for the first time
        for command in commands(name, ranges=ranges):
            collection = cluster.shard[name][command["shardCollection"].partition(".")[2]]
            if not ranges:
                collection.create_index([*command["key"].items()])
            if not nth:
                collection.insert_one({"_id": "s1:1", "session_id": "s1", "seq": 1, "last": 1, "position": 1})
            cluster.shard_collection(command)
    assert cluster.keys(name) == {
        collection: {field: 1 if ranges else "hashed"} for collection, field in KEYS.items()
    }


def test_the_cluster_refuses_a_key_that_an_index_of_ours_does_not_begin_with(cluster: Cluster) -> None:
    cluster.database("refused")
    runs = cluster.shard["refused"]["runs"]
    runs.create_index([("_id", "hashed")])
    with pytest.raises(OperationFailure, match="unique index"):
        cluster.shard_collection({"shardCollection": "refused.runs", "key": {"_id": "hashed"}})


async def test_what_is_not_sharded_yet_is_named(cluster: Cluster, settings: Settings) -> None:
    cluster.database("half")
    command, *_ = commands("half", ranges=True)
    cluster.shard_collection(command)
    host = _host(cluster.config)
    there = msgspec.structs.replace(
        settings, mongodb_url=f"mongodb://{host}/?directConnection=true", mongodb_db="half"
    )
    async with connect(there) as database:
        assert set(await unsharded(database)) == KEYS.keys() - {"events"}


def test_a_replica_set_is_not_sharded_and_what_to_do_is_said(settings: Settings) -> None:
    result = CliRunner().invoke(main, ["init-db", "--sharded"], env=settings.to_env())
    assert result.exit_code == 1
    assert "mongos" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "events: session_seq" not in result.stdout  # nothing was made before it was refused
