"""Records as documents, and what BSON makes of them."""

from __future__ import annotations

from typing import Any

import bson
import msgspec
import pytest

from tailrace.documents import from_document, to_document
from tailrace.errors import DocumentDamaged


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored."""

    record_id: str
    value: Any


def test_integers_of_64_bits_can_be_encoded_when_they_were_read_back() -> None:
    record = Record(record_id="a", value=[2**31, {"big": 2**63 - 1}, -(2**63), 1.5, None, "x"])
    found = from_document(Record, bson.decode(bson.encode(to_document(record))))
    assert msgspec.json.encode(found) == msgspec.json.encode(record)


@pytest.mark.parametrize("document", [{"_id": "a", "session_id": "s1"}, {"_id": 7, "value": 1}])
def test_a_document_that_is_no_record_is_named_with_its_session(document: dict[str, Any]) -> None:
    with pytest.raises(DocumentDamaged, match=rf"^Record {document['_id']!r}: ") as raised:
        from_document(Record, document)
    assert raised.value.session_id == document.get("session_id")
