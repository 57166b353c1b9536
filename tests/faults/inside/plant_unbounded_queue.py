"""A plant: nothing bounds what is kept for a reader that does not read, and it is never cut."""

from __future__ import annotations

from typing import Any, cast

import tailrace.live.channel
from tailrace.api.stream_connection import StreamConnection

cast(Any, tailrace.live.channel).MAX_BYTES = 1 << 40
# The feed then never waits for the socket: its transport takes whatever there is.
cast(Any, StreamConnection).pause_writing = lambda self: None
cast(Any, StreamConnection).resume_writing = lambda self: None
