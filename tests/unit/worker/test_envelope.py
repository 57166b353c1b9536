"""What is too long for one event."""

from __future__ import annotations

from tests.records import a_run

from tailrace.carry import carry_data
from tailrace_worker.envelope import Envelope
from tailrace_worker.tracing import Trace

RUN = a_run(run_id="r", state="running")


def test_an_endless_message_is_cut_so_far_that_the_event_which_tells_it_is_not() -> None:
    envelope = Envelope(RUN, Trace())
    message = envelope.message(
        role="tool", content="x" * 17_000_000, content_parts=[], name="shell", status="error"
    )
    assert message.content.endswith("more characters]")
    assert (message.name, message.status) == ("shell", "error")
    told = envelope.completed(message).data
    assert carry_data(told) == told
