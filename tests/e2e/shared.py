"""Settings for a stack that the tests of one module share: it takes seconds to start."""

from __future__ import annotations

from uuid import uuid4

from tailrace.settings import Settings

__all__ = ["shared_settings"]


def shared_settings(mongo_url: str, redis_url: str) -> Settings:
    """Settings with a database and a queue of their own, and no limits: one user does all that is tested."""
    name = f"test_{uuid4().hex[:16]}"
    return Settings(
        mongodb_url=mongo_url,
        mongodb_db=name,
        redis_url=redis_url,
        queue=name,
        jwt_secret="only-for-the-tests-of-this-repository",
        langfuse_enabled=False,
        max_runs_per_minute=0,
        max_concurrent_runs=0,
        max_concurrent_streams=0,
    )
