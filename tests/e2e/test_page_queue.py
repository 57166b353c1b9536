"""The page in a real browser, where a run waits for another one of its session."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import msgspec
import pytest
from playwright.async_api import expect
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack
from tests.e2e.test_page import PATIENCE_MS, answers, ask, chromium, has_begun, has_finished, watched_page

LONG = "Please write 2000 words."


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = shared_settings(mongo_url, redis_url)
    with Stack(msgspec.structs.replace(settings, offline_tokens_per_second=40.0, dev_user="alice")) as stack:
        yield stack


async def enqueue(stack: Stack, session: str, prompt: str) -> None:
    """Another client of the same user puts a run behind the active one."""
    async with stack.client() as client:
        answer = await client.post(
            f"/api/apps/{session}/agent/generate",
            json={"prompt": prompt, "on_conflict": "enqueue"},
            headers={"Prefer": "respond-async"},
        )
    assert (answer.status_code, answer.json()["state"]) == (httpx.codes.ACCEPTED, "waiting")


async def test_stop_ends_the_active_run_and_then_the_one_that_waited(stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, stack.url) as page:
        stop, stopped = page.get_by_test_id("stop"), page.get_by_test_id("note")
        await ask(page, LONG)
        await has_begun(page, 5)
        await enqueue(stack, page.url.partition("#")[2], LONG)
        await has_begun(page, len((await answers(page).last.inner_text()).split()) + 5)  # it knows of both
        await stop.click()
        await expect(stopped).to_have_count(1)
        await expect(answers(page)).to_have_count(2, timeout=PATIENCE_MS)
        await has_begun(page, 5)
        await expect(stop).to_be_enabled()
        await stop.click()
        await has_finished(page)
        await expect(stopped).to_have_text(["The run was cancelled."] * 2)
        await expect(stop).to_be_hidden()
