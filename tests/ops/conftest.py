"""The compose file's topology, started once for all tests here: it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.ops.deployment import Deployment


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Three mongod with keyfile and users, Valkey, two APIs behind nginx, a worker, rq-dashboard."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
