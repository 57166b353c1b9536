"""A sink: where one stream's bytes go."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes bytes without waiting.

    Its owner tells the feed what happens to it: `wake` when there is room again, `close` when it is gone.
    """

    @property
    def full(self) -> bool:
        """Whether much of what was written still waits: what can wait should not be written."""
        ...

    def write(self, data: bytes) -> None:
        """Send `data`, sooner or later. It may be shared: it is kept, not copied, while it waits."""
        ...

    def end(self) -> None:
        """Nothing more comes. What was written is still sent."""
        ...
