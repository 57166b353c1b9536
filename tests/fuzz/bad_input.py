"""The whole list of bad input, as data."""

from __future__ import annotations

from tests.fuzz.bad_tokens import Keys, tokens
from tests.fuzz.bodies import bodies, framing
from tests.fuzz.case import Case, Target
from tests.fuzz.places import cursors, session_ids, timestamps

__all__ = ["IN_ORDER", "bad_input"]

IN_ORDER = "body, in order"  # a topic whose cases depend on those before them


def bad_input(target: Target, keys: Keys, user: str, nonce: str) -> list[Case]:
    """The cases, sent as `user`; what they start, they start in sessions that begin with `nonce`."""
    return [
        *session_ids(target),
        *timestamps(target),
        *cursors(target),
        *tokens(target, keys, user),
        *bodies(target, nonce),
        *framing(target, nonce),
    ]
