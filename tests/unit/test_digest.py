"""The chain over a run's frames."""

from __future__ import annotations

from hashlib import sha256
from itertools import permutations

from tailrace.digest import Digest

FRAMES = (b'{"seq":1}', '{"seq":2,"delta":"Grüße 🌊"}'.encode(), b'{"seq":3}')


def digest_of(*frames: bytes) -> str:
    digest = Digest()
    for frame in frames:
        digest.update(frame)
    return digest.hexdigest()


def test_the_chain_is_what_the_protocol_says() -> None:
    first = sha256(FRAMES[0]).digest()
    second = sha256(first + FRAMES[1]).digest()
    assert digest_of() == ""
    assert digest_of(*FRAMES) == sha256(second + FRAMES[2]).hexdigest()


def test_a_missing_a_doubled_a_moved_and_a_changed_frame_each_show() -> None:
    one, two, three = FRAMES
    others = [digest_of(*order) for order in permutations(FRAMES)][1:]
    others += [digest_of(one, two), digest_of(two, three), digest_of(one, two, two, three)]
    others += [digest_of(one, two, three + b" "), digest_of(one + two, three)]
    assert digest_of(*FRAMES) not in others
    assert len(set(others)) == len(others)
