"""The newest frames of a session, shared by its readers."""

from __future__ import annotations

import asyncio

from tailrace.live.channel import CHUNK_BYTES, MAX_BYTES, TURN, Channel
from tailrace.live.sse import Frame


def frame(seq: int, size: int = 10) -> Frame:
    return Frame(seq, "r1", "custom", b"x" * size)


def seqs(channel: Channel, after: int) -> list[int] | None:
    found = channel.after(after)
    return None if found is None else [item.seq for item in found.frames]


def channel_of(*numbers: int) -> Channel:
    channel = Channel()
    for seq in numbers:
        channel.publish(frame(seq))
    return channel


def test_a_reader_gets_what_follows_its_position() -> None:
    channel = channel_of(4, 5, 6)
    assert [seqs(channel, after) for after in (3, 4, 6, 9)] == [[4, 5, 6], [5, 6], [], []]


def test_a_reader_behind_what_is_kept_is_told_to_read_history() -> None:
    assert seqs(channel_of(4, 5), 2) is None


def test_an_event_seen_by_two_overlapping_streams_counts_once() -> None:
    assert seqs(channel_of(4, 5, 4, 5, 6), 3) == [4, 5, 6]


def test_a_hole_is_never_bridged() -> None:
    channel = channel_of(4, 6)
    assert seqs(channel, 4) is None
    assert seqs(channel, 5) == [6]


def test_what_is_kept_is_bounded_in_bytes() -> None:
    channel = Channel()
    for seq in range(1, 200):
        channel.publish(frame(seq, MAX_BYTES // 10))
    assert seqs(channel, 194) == [195, 196, 197]  # a chunk
    assert seqs(channel, 197) == [198, 199]
    assert seqs(channel, 180) is None


def test_one_frame_larger_than_the_bound_is_still_delivered() -> None:
    channel = channel_of(1)
    channel.publish(frame(2, 2 * MAX_BYTES))
    assert seqs(channel, 1) == [2]


class Counting:
    """A reader that counts how often it is woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Taking:
    """A reader that takes what there is, and keeps what it got each time it was woken."""

    channel: Channel

    def __init__(self) -> None:
        self.taken: list[tuple[int, ...]] = []
        self._seq = 0

    def wake(self) -> None:
        batch = self.channel.after(self._seq)
        assert batch is not None
        self.taken.append(tuple(item.seq for item in batch.frames))
        self._seq = batch.frames[-1].seq if batch.frames else self._seq


async def test_a_lost_channel_begins_a_new_epoch_and_wakes_its_readers() -> None:
    channel, reader = channel_of(1), Counting()
    channel.readers.add(reader)
    channel.lose()
    await asyncio.sleep(0)
    assert (channel.epoch, seqs(channel, 0), reader.woken) == (1, [], 1)


async def test_what_comes_in_one_turn_wakes_each_reader_once() -> None:
    channel, readers = Channel(), [Counting() for _ in range(2 * TURN + 1)]
    channel.readers.update(readers)
    for seq in (1, 2, 3):
        channel.publish(frame(seq))
    for _ in range(3):
        await asyncio.sleep(0)
    assert {reader.woken for reader in readers} == {1}


async def test_what_comes_during_a_round_goes_with_it_and_the_others_get_it_in_the_next() -> None:
    channel, readers = Channel(), [Taking() for _ in range(3 * TURN)]
    for reader in readers:
        reader.channel = channel
    channel.readers.update(readers)
    channel.publish(frame(1))
    await asyncio.sleep(0)
    channel.publish(frame(2))
    for _ in range(20):
        await asyncio.sleep(0)
    taken = [tuple(reader.taken) for reader in readers]
    assert sorted(set(taken)) == [((1,), (2,)), ((1, 2), ())]
    assert taken.count(((1,), (2,))) == TURN


def test_a_batch_says_whether_anything_follows_it() -> None:
    channel = Channel()
    for seq in range(1, 7):
        channel.publish(frame(seq, CHUNK_BYTES // 4))
    assert [batch.newest for after in (0, 4, 6) if (batch := channel.after(after))] == [False, True, True]


def test_readers_at_one_place_share_the_bytes() -> None:
    channel = channel_of(1, 2, 3)
    assert channel.after(1) is channel.after(1)
    assert channel.after(1) is not channel.after(2)


def test_a_batch_is_about_a_chunk_and_names_the_runs_that_end_in_it() -> None:
    channel = Channel()
    for seq in range(1, 11):
        channel.publish(frame(seq, CHUNK_BYTES // 4))
    channel.publish(Frame(11, "r1", "finish", b"x"))
    assert (seqs(channel, 0), seqs(channel, 8)) == ([1, 2, 3, 4], [9, 10, 11])
    ends = [batch.ended for seq in (0, 8) if (batch := channel.after(seq))]
    assert ends == [frozenset(), frozenset(("r1",))]
