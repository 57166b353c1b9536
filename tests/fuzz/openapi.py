"""schemathesis over the OpenAPI document: a process of its own, whose findings are read from its report."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.fuzz.case import CANARY

__all__ = ["Schemathesis", "explore"]

SSE_EVENTS = 200  # of a stream; more are not waited for

# What a schema cannot say, and schemathesis would have accepted: a well-formed cursor of another session, an
# idempotency key used before, an integer beyond 64 bits somewhere in the metadata, a blank in some script.
_BEYOND_SCHEMAS = (
    b"urn:tailrace:problem:cursor",
    b"urn:tailrace:problem:idempotency",
    b"holds what cannot be stored",
    b"must not be blank",
)
_ROOT = Path(__file__).resolve().parents[2]


class Schemathesis(msgspec.Struct, kw_only=True):
    """What schemathesis did and found."""

    requests: int = 0
    statuses: Counter[int] = msgspec.field(default_factory=Counter)
    operations: Counter[str] = msgspec.field(default_factory=Counter)
    wrong: list[str] = msgspec.field(default_factory=list)


async def explore(
    url: str,
    token: str,
    place: Path,
    *,
    seed: int,
    examples: int,
    seconds: int | None = None,
    stateful: bool = True,
) -> Schemathesis:
    """Every operation, with data that its schema allows and data that it does not, then in sequences.

    `seconds` goes on until then, else each operation has `examples`. It leaves its files in `place`.
    """
    place.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - before anything else runs
    report = place / "report.ndjson"
    log = place / "schemathesis.log"
    options = [
        *("--header", "Prefer: respond-async"),  # there are few workers; others wait for their streams
        *("--header", f"Authorization: Bearer {token}", "--seed", str(seed), "--max-examples", str(examples)),
        *("--checks", "all", "--continue-on-failure", "--request-timeout", "20", "--no-shrink", "--no-color"),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
        *("--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"),
        *("--phases", "coverage,fuzzing" + (",stateful" if stateful else "")),
        *(("--max-time", str(seconds)) if seconds else ()),
    ]
    config = place / "schemathesis.toml"
    config.write_text(f"max-stream-events = {SSE_EVENTS}\n")
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            *(f"{url}/schema/openapi.json", *options),
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    found = await asyncio.to_thread(_read, report)
    if code not in (0, 1) or not found.requests:
        found.wrong.append(f"schemathesis ended with {code}: {log.read_text(errors='replace')[-3000:]}")
    return found


def _read(report: Path) -> Schemathesis:
    found = Schemathesis()
    if not report.exists():
        return found
    with report.open("rb") as lines:
        for line in lines:
            ((kind, event),) = json.loads(line).items()
            if kind == "ScenarioFinished":
                _scenario(event["recorder"], found)
            elif kind in ("NonFatalError", "FatalError"):
                found.wrong.append(f"{kind} at {event.get('label')}: {json.dumps(event.get('value'))[:1000]}")
    found.wrong = list(dict.fromkeys(found.wrong))
    return found


def _scenario(recorder: dict[str, Any], found: Schemathesis) -> None:
    cases = recorder.get("cases", {})
    for case, exchanged in recorder.get("interactions", {}).items():
        answer = exchanged.get("response")
        found.requests += 1
        found.statuses[answer["status_code"] if answer else 0] += 1
        value = cases.get(case, {}).get("value", {})
        found.operations[f"{value.get('method')} {value.get('path')}"] += 1
        if answer and CANARY.encode() in _body(answer):
            found.wrong.append(f"{exchanged['request']['uri']} shows what belongs to somebody else")
    for case, checks in recorder.get("checks", {}).items():
        found.wrong += _failures(recorder.get("interactions", {}).get(case, {}), checks)


def _beyond_schemas(check: str, exchanged: dict[str, Any]) -> bool:
    said = _body(exchanged.get("response") or {})
    return check == "positive_data_acceptance" and any(words in said for words in _BEYOND_SCHEMAS)


def _body(answer: dict[str, Any]) -> bytes:
    content = answer.get("content") or ""
    return base64.b64decode(content["$base64"]) if isinstance(content, dict) else str(content).encode()


def _failures(exchanged: dict[str, Any], checks: list[dict[str, Any]]) -> Iterator[str]:
    for check in checks:
        if check["status"] == "failure" and not _beyond_schemas(check["name"], exchanged):
            failure = check["failure_info"]["failure"]
            request = exchanged.get("request", {})
            sent = json.dumps(request.get("body"))[:300]
            yield (
                f"[{check['name']}] {request.get('method')} {request.get('uri')} {sent}: "
                f"{failure['title']}: {failure.get('message', '')[:600]} "
                f"{_body(exchanged.get('response') or {})[:300]!r}"
            )
