"""What schemathesis loads, in its own process: how a request is changed before it is sent."""

from __future__ import annotations

from typing import Any

import schemathesis

__all__ = ["before_call"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """No stream that never ends."""
    if case.path.endswith("/stream-continue") and case.query and case.query.get("follow") == "session":
        case.query = {**case.query, "follow": "none"}
