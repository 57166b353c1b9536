"""The digest of a run: a chain over its frames, by which a reader proves that it saw them all, unchanged."""

from __future__ import annotations

from hashlib import sha256

__all__ = ["Digest"]


class Digest:
    """h₀ is empty, hₙ = SHA-256(hₙ₋₁ ‖ frame n's JSON), in the order of `seq`, the `finish` left out.

    It goes on from another's `hexdigest`, if that is given.
    """

    __slots__ = ("_chain",)

    def __init__(self, hexdigest: str = "") -> None:
        self._chain = bytes.fromhex(hexdigest)

    def update(self, frame_json: bytes) -> None:
        """Chain the next frame: the exact bytes of its `data:` value."""
        self._chain = sha256(self._chain + frame_json).digest()

    def hexdigest(self) -> str:
        """The chain's end in hexadecimal; empty before the first frame."""
        return self._chain.hex()
