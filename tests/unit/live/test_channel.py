"""The newest frames of a session, shared by its readers."""

from __future__ import annotations

from tailrace.live.channel import MAX_BYTES, Channel
from tailrace.live.sse import Frame
from tailrace.live.subscription import Subscription


def frame(seq: int, size: int = 10) -> Frame:
    return Frame(seq, "r1", "custom", b"x" * size)


def seqs(channel: Channel, after: int) -> list[int] | None:
    found = channel.after(after)
    return None if found is None else [item.seq for item in found]


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
    kept = seqs(channel, 194)
    assert kept is not None
    assert kept[-1] == 199
    assert seqs(channel, 180) is None


def test_one_frame_larger_than_the_bound_is_still_delivered() -> None:
    channel = channel_of(1)
    channel.publish(frame(2, 2 * MAX_BYTES))
    assert seqs(channel, 1) == [2]


def test_a_lost_channel_begins_a_new_epoch_and_wakes_its_readers() -> None:
    channel, subscription = channel_of(1), Subscription()
    channel.subscriptions.add(subscription)
    channel.lose()
    assert (channel.epoch, seqs(channel, 0)) == (1, [])


async def test_a_wake_before_the_wait_is_not_lost() -> None:
    subscription = Subscription()
    subscription.wake()
    await subscription.wait()


async def test_a_comment_is_due_after_a_silent_tick() -> None:
    subscription = Subscription()
    subscription.sent = True
    subscription.tick()
    assert not subscription.due
    subscription.tick()
    assert subscription.due
