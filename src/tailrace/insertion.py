"""An insert that goes to the server once: whoever makes it can tell whether an earlier one succeeded.

The driver's own inserts can be repeated by it. For that the server keeps a record of each in a collection of
its own, and 150 bytes more in the oplog for each document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bson import Timestamp, encode
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from tailrace.mongo import Database

__all__ = ["insert_in_order"]

MAX_COMMAND_BYTES = 40_000_000  # of documents; the server takes messages of 48,000,000


async def insert_in_order(
    database: Database, collection: str, documents: Iterable[Mapping[str, Any]]
) -> Timestamp | None:
    """Insert `documents`, one at least, in their order; a majority has them on return.

    Returns the cluster time by which they stand, unless the server keeps none.

    Raises `BulkWriteError` at the first one that is refused, with its index and nothing of what it says;
    those before it are stored. It has `writeConcernErrors` when no majority is known to have those.
    """
    before = 0
    for batch in _batches(documents):
        answer = await database.command(
            {
                "insert": collection,
                "documents": batch,
                # The server stops at the first collision: nothing lands behind a fence or a hole.
                "ordered": True,
                "writeConcern": {"w": "majority"},
            }
        )
        _check(answer, before)
        before += len(batch)
    at: Timestamp | None = answer.get("operationTime")
    return at


def _batches(documents: Iterable[Mapping[str, Any]]) -> Iterator[list[RawBSONDocument]]:
    """By as many as the server takes in one message."""
    batch: list[RawBSONDocument] = []
    size = 0
    for document in map(encode, documents):
        if batch and size + len(document) > MAX_COMMAND_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(RawBSONDocument(document))
        size += len(document)
    yield batch


def _check(answer: Mapping[str, Any], before: int) -> None:
    """Raise what `answer` says went wrong; `before` documents were inserted before those it is about."""
    refused, unsure = answer.get("writeErrors", ()), answer.get("writeConcernError")
    if refused or unsure:
        # The server's details of a refusal may quote the document: what users said would be in the logs.
        errors = [
            {"index": before + found["index"], "code": found["code"], "errmsg": found.get("errmsg", "")}
            for found in refused
        ]
        raise BulkWriteError({"writeErrors": errors, "writeConcernErrors": [unsure] if unsure else []})
