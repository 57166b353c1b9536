"""What is stored of a session: by its id and by words that were said in it, in every collection and key."""

from __future__ import annotations

from typing import Any

from pymongo import MongoClient
from redis import Redis

from tailrace.settings import Settings

__all__ = ["in_mongo", "in_redis"]


def in_mongo(mongo: MongoClient[dict[str, Any]], settings: Settings, *words: str) -> list[str]:
    """The documents that hold one of `words`, by collection; a tombstone, which holds the id, is none."""
    database = mongo[settings.mongodb_db]
    return [
        f"{name}: {document}"[:300]
        for name in database.list_collection_names()
        for document in database[name].find()
        if "erased_at" not in document and any(word in str(document) for word in words)
    ]


def in_redis(settings: Settings, *words: str) -> list[str]:
    """The keys whose name or content holds one of `words`."""
    with Redis.from_url(settings.redis_url, decode_responses=True, encoding_errors="replace") as redis:
        return [
            f"{key}: {content}"[:300]
            for key in redis.scan_iter()
            if any(word in f"{key}: {(content := _content(redis, key))}" for word in words)
        ]


def _content(redis: Any, key: str) -> Any:
    reads = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "stream": redis.xrange,
        "none": lambda key: None,  # it has just gone
    }
    return reads[redis.type(key)](key)
