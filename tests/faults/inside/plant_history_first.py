"""A plant: history is read before the tail covers the session."""

from __future__ import annotations

from typing import Any, cast

import tailrace.live.hub

cast(Any, tailrace.live.hub.Hub).covers = lambda self, session_id: True
