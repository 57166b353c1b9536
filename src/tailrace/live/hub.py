"""The hub: the channels that have readers in this process, and which of them the tail covers."""

from __future__ import annotations

import asyncio

from tailrace.events import Event
from tailrace.live.channel import Channel, Reader
from tailrace.live.hole import found
from tailrace.live.sse import frame

__all__ = ["Hub"]

STALE_SESSIONS = 256  # sessions without readers that may stay in the tail's filter before it is made smaller


class Hub:
    """Hands the tail's events to the channels of their sessions."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}
        self._covered: frozenset[str] = frozenset()
        self.changed = asyncio.Event()  # set when the tail's filter should be looked at again

    @property
    def sessions(self) -> frozenset[str]:
        """The sessions that have a reader here: what the tail should watch."""
        return frozenset(self._channels)

    @property
    def buffered(self) -> int:
        """Bytes kept in all channels."""
        return sum(channel.size for channel in self._channels.values())

    def join(self, session_id: str, reader: Reader) -> Channel:
        """The session's channel, which wakes `reader` until it leaves."""
        channel = self._channels.get(session_id)
        if channel is None:
            channel = self._channels[session_id] = Channel()
            if session_id not in self._covered:
                self.changed.set()
        channel.readers.add(reader)
        return channel

    def leave(self, session_id: str, channel: Channel, reader: Reader) -> None:
        """Take the reader from the channel that it joined."""
        channel.readers.discard(reader)
        if not channel.readers and self._channels.get(session_id) is channel:
            del self._channels[session_id]
            if self._filter_is_stale():  # no more than that: thousands may leave at once
                self.changed.set()

    def covers(self, session_id: str) -> bool:
        """Whether every event of the session from now on will be published here."""
        return session_id in self._covered

    def publish(self, event: Event) -> None:
        """Give an event to its readers; it is encoded here, once."""
        channel = self._channels.get(event.session_id)
        if channel is None or event.session_id not in self._covered:
            return  # from a stream that is being replaced by one that will not bring what follows
        last = channel.last
        if not channel.publish(frame(event)):
            found("channel", event.session_id, after=last, seq=event.seq)

    def filter_is_wrong(self) -> bool:
        """Whether a session with a reader is not watched, or too many are watched that have none."""
        return not self._channels.keys() <= self._covered or self._filter_is_stale()

    def _filter_is_stale(self) -> bool:
        return len(self._covered) > STALE_SESSIONS + 2 * len(self._channels)

    def cover(self, sessions: frozenset[str]) -> None:
        """The tail now watches exactly `sessions`, and delivers all that it watched before until here."""
        before, self._covered = self._covered, sessions
        for session_id in sessions - before:
            if channel := self._channels.get(session_id):
                channel.wake()
        for session_id in (before - sessions) & self._channels.keys():
            self._channels[session_id].lose()  # its reader joined while the filter was being changed
        if self.filter_is_wrong():
            self.changed.set()

    def lose(self) -> None:
        """The tail broke: nothing is covered, and what the channels hold may lack its newest events."""
        self._covered = frozenset()
        for channel in self._channels.values():
            channel.lose()
