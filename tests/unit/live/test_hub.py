"""The hub: which sessions it hands events on for, and which it does not."""

from __future__ import annotations

from tailrace.events import Event
from tailrace.live.hub import Hub


def _event(seq: int) -> Event:
    return Event(
        event_id=f"s:{seq}",
        session_id="s",
        run_id="r",
        attempt=1,
        seq=seq,
        timestamp=1.0,
        event_type="custom",
        data={"value": seq},
    )


async def test_an_event_of_a_session_that_is_not_covered_is_nobodys() -> None:
    # A stream that is being replaced still delivers: what follows its last event comes much later.
    hub, reader = Hub(), _Reader()
    channel = hub.join("s", reader)
    hub.cover(frozenset(("s",)))
    hub.publish(_event(1))
    assert channel.last == 1
    hub.cover(frozenset())
    hub.publish(_event(2))
    assert channel.last == 0
    hub.cover(frozenset(("s",)))
    hub.publish(_event(6))
    assert channel.hole == 0
    assert channel.last == 6
    hub.leave("s", channel, reader)
    assert not hub.sessions


class _Reader:
    def wake(self) -> None:
        pass
