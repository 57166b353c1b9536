"""The live side of a process: one change stream in, every reader's frames out."""

from tailrace.live.feed import Feed
from tailrace.live.live import Live
from tailrace.live.position import Until
from tailrace.live.sink import Sink

__all__ = ["Feed", "Live", "Sink", "Until"]
