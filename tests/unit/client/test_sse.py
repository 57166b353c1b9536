"""The parser of server-sent events."""

from __future__ import annotations

import pytest

from tailrace.client.errors import BadStream
from tailrace.client.frame import frame_of
from tailrace.client.sse import MAX_FRAME_BYTES, Block, Parser

STREAM = (
    b"\xef\xbb\xbfretry: 2500\r\n\r\n: a comment\r\n\r\n"
    + 'id: s:1\r\nevent: delta\r\ndata: {"delta":"Grüße 🌊"}\r\n\r\n'.encode()
    + b"data: one\rdata:two\r\rdata\n\nid: s:2\nevent: finish\ndata: {}\n\n"
)
BLOCKS = [
    Block(event="delta", data='{"delta":"Grüße 🌊"}', id="s:1"),
    Block(event="message", data="one\ntwo"),
    Block(event="message", data=""),
    Block(event="finish", data="{}", id="s:2"),
]


def test_a_stream_gives_the_same_frames_wherever_it_is_cut() -> None:
    for at in range(len(STREAM) + 1):
        parser = Parser()
        assert parser.feed(STREAM[:at]) + parser.feed(STREAM[at:]) == BLOCKS, at
        assert parser.retry_seconds == 2.5


def test_a_stream_may_come_byte_by_byte() -> None:
    parser = Parser()
    assert [block for byte in STREAM for block in parser.feed(bytes([byte]))] == BLOCKS


def test_a_unicode_line_separator_is_text() -> None:
    assert Parser().feed("data: a\u2028b\u0085c\n\n".encode())[0].data == "a\u2028b\u0085c"


def test_an_unfinished_frame_is_not_dispatched() -> None:
    assert Parser().feed(b"data: x\n") == []


def test_an_id_with_nul_is_no_id() -> None:
    assert Parser().feed(b"id: a\0b\ndata: x\n\n")[0].id is None


def test_a_frame_without_end_is_refused_and_many_frames_are_not() -> None:
    parser = Parser()
    for _ in range(6):
        assert len(parser.feed(b"data: " + b"x" * 1_000_000 + b"\n\n")) == 1
    parser.feed(b"x" * MAX_FRAME_BYTES)
    with pytest.raises(BadStream, match="larger"):
        parser.feed(b"x")


@pytest.mark.parametrize("data", ["", "no json", "[1]", "{}", '{"seq":"1"}', '{"seq":0}', '{"seq":true}'])
def test_what_is_no_event_is_refused(data: str) -> None:
    with pytest.raises(BadStream):
        frame_of(Block(event="delta", data=data, id="s:1"))


def test_a_frame_without_id_has_no_place() -> None:
    frame = frame_of(Block(event="stream.ready", data='{"tail_seq":7}'))
    assert (frame.seq, frame.type, frame.data) == (None, "stream.ready", {"tail_seq": 7})
