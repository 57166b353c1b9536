"""The traces of runs in Langfuse, as far as the service itself must reach them: to have them deleted."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from tailrace.settings import Settings

__all__ = ["delete_traces"]

AT_ONCE = 100  # trace ids of one request
PATIENCE_SECONDS = 10.0


async def delete_traces(settings: Settings, trace_ids: Sequence[str]) -> None:
    """Have Langfuse delete these traces, which it does some time later; nothing while tracing is off.

    By `DELETE /api/public/traces` of its public API, which takes ids that it does not know. Raises
    `httpx.HTTPError` when it does not answer, or refuses.
    """
    if not (settings.tracing and trace_ids):
        return
    keys = (settings.langfuse_public_key or "", settings.langfuse_secret_key or "")
    async with httpx.AsyncClient(auth=keys, timeout=PATIENCE_SECONDS) as client:
        for start in range(0, len(trace_ids), AT_ONCE):
            wanted = {"traceIds": list(trace_ids[start : start + AT_ONCE])}
            answer = await client.request("DELETE", f"{settings.langfuse_url}/api/public/traces", json=wanted)
            answer.raise_for_status()
