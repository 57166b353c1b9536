"""A plant: nothing bounds what is kept for a reader that does not read, and it is never cut."""

from __future__ import annotations

from typing import Any, cast

import tailrace.live.channel
from tailrace.api.connection import Connection

cast(Any, tailrace.live.channel).MAX_BYTES = 1 << 40
# uvicorn then never waits for the socket: its transport takes whatever the feed has.
cast(Any, Connection).pause_writing = lambda self: None
cast(Any, Connection).resume_writing = lambda self: None
