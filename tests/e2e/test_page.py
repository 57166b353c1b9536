"""The page in a real browser: Debian's Chromium, the one at CHROMIUM_PATH, or Playwright's own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",
]
PROMPT = "Please write 120 words about the river."
PATIENCE_MS = 30_000.0


@pytest.fixture(scope="module")
def human_stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    """A stack whose model takes its time, as models do, and whose page gets its token by itself."""
    settings = shared_settings(mongo_url, redis_url)
    with Stack(msgspec.structs.replace(settings, offline_tokens_per_second=40.0, dev_user="alice")) as stack:
        yield stack


def executable(own: str) -> str:
    path = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium") or own
    if not Path(path).exists():
        missing = "No browser: install Debian's chromium, or name one in CHROMIUM_PATH."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        path = executable(playwright.chromium.executable_path)
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched_page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page at `url` that must not have thrown anything by its end."""
    context = await browser.new_context(viewport={"width": 1180, "height": 760})
    page = await context.new_page()
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(url)
    yield page
    await context.close()
    assert thrown == []


async def ask(page: Page, prompt: str) -> None:
    await page.get_by_test_id("prompt").fill(prompt)
    await page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    """The texts of the answers that are shown."""
    return page.get_by_test_id("message-assistant").get_by_test_id("text")


async def has_begun(page: Page, words: int) -> None:
    """Wait until the answer has that many words and is not complete."""
    await expect(answers(page).last).to_have_text(re.compile(rf"(\S+\s+){{{words}}}"), timeout=PATIENCE_MS)
    await expect(page.get_by_test_id("status")).to_have_text("Live")


async def has_finished(page: Page) -> None:
    await expect(page.get_by_test_id("status")).to_have_text("Finished", timeout=PATIENCE_MS)


async def stored(stack: Stack, page: Page) -> list[str]:
    """What the assistant said, as the API has it."""
    async with stack.client() as client:
        answer = await client.get(f"/api/apps/{page.url.partition('#')[2]}/agent/messages")
    messages = answer.json()["messages"]
    return [
        message["content"] for message in messages if message["role"] == "assistant" and message["content"]
    ]


async def test_a_reload_in_mid_answer_shows_the_whole_answer_once(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, PROMPT)
        await expect(page.get_by_test_id("message-user")).to_have_text(re.compile(re.escape(PROMPT)))
        await has_begun(page, 5)
        before = await answers(page).last.inner_text()
        await page.reload()
        await has_begun(page, len(before.split()))
        assert (await answers(page).last.inner_text()).startswith(before)
        await has_finished(page)
        said = await answers(page).all_inner_texts()
        assert said == await stored(human_stack, page)
        assert len(said[0].split()) == 120
        assert await page.get_by_test_id("message-user").count() == 1
        assert await page.get_by_test_id("trace").count() == 0  # without tracing no link


async def test_two_tabs_show_the_same(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, "What time is it in Tokyo?")
        await has_finished(page)
        async with watched_page(browser, page.url) as other:
            await expect(other.get_by_test_id("message-user")).to_have_count(1)
            await ask(page, "Please write 60 words.")
            await has_begun(other, 5)
            await has_finished(other)
            await has_finished(page)
            assert await answers(other).all_inner_texts() == await answers(page).all_inner_texts()
            assert len((await answers(other).last.inner_text()).split()) == 60
            tool = other.get_by_test_id("tool")
            await tool.locator("summary").click()
            await expect(tool.get_by_test_id("tool-input")).to_contain_text("Asia/Tokyo")
            await expect(tool.get_by_test_id("tool-output")).to_contain_text("JST")


async def test_an_offline_moment_heals_by_itself(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, PROMPT)
        await has_begun(page, 5)
        await page.context.set_offline(True)
        await expect(page.get_by_test_id("status")).to_have_text(re.compile("Offline"), timeout=PATIENCE_MS)
        await page.context.set_offline(False)
        await has_finished(page)
        assert await answers(page).all_inner_texts() == await stored(human_stack, page)


async def test_a_killed_server_comes_back_and_the_answer_is_whole(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, PROMPT)
        await has_begun(page, 5)
        human_stack.kill_api()
        await expect(page.get_by_test_id("status")).to_have_text(re.compile("Offline"), timeout=PATIENCE_MS)
        human_stack.start_api()  # not in a thread: the process would die with it
        await has_finished(page)
        assert await answers(page).all_inner_texts() == await stored(human_stack, page)


async def test_a_failed_run_says_why_and_the_next_prompt_works(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, "please fail")
        await expect(page.get_by_test_id("note")).to_contain_text("fail", timeout=PATIENCE_MS)
        await has_finished(page)
        await ask(page, "What is 17 * 23?")
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)
        await expect(page.get_by_test_id("session").first).to_contain_text("please fail")


async def test_stop_keeps_what_was_said_and_the_next_prompt_works(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        stop, send = page.get_by_test_id("stop"), page.get_by_test_id("send")
        await expect(stop).to_be_hidden()
        await ask(page, PROMPT)
        await has_begun(page, 5)
        await expect(send).to_be_hidden()
        await stop.click()
        await has_finished(page)
        await expect(stop).to_be_hidden()
        answer = page.get_by_test_id("message-assistant").last
        await expect(answer).to_have_attribute("data-status", "cancelled")
        await expect(page.get_by_test_id("note")).to_contain_text("cancelled")
        said = await answers(page).last.inner_text()
        assert 5 <= len(said.split()) < 120
        assert [said] == await stored(human_stack, page)
        await page.reload()
        await expect(answers(page).last).to_have_text(said)
        await expect(answer).to_have_attribute("data-status", "cancelled")
        await ask(page, "What is 17 * 23?")
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)


async def test_a_prompt_that_is_stopped_before_a_worker_has_it_stays(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await ask(page, "Please write 2000 words.")
        await has_begun(page, 5)  # the only worker is busy
        async with watched_page(browser, human_stack.url) as other:
            await ask(other, "Hello")
            await other.get_by_test_id("stop").click()
            await has_finished(other)
            await expect(other.get_by_test_id("message-user")).to_have_count(1)
            await expect(other.get_by_test_id("message-user")).to_contain_text("Hello")
            await expect(other.get_by_test_id("send")).to_be_enabled()
        await page.get_by_test_id("stop").click()
        await has_finished(page)


async def test_a_prompt_for_a_server_that_is_away_is_sent_when_it_is_back(human_stack: Stack) -> None:
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        human_stack.kill_api()
        await ask(page, "What is 17 * 23?")
        await expect(page.get_by_test_id("problem")).to_contain_text("Trying again")
        await expect(page.get_by_test_id("status")).to_have_text(re.compile("Offline"))
        await expect(page.get_by_test_id("message-user")).to_have_text(re.compile("17"))
        await expect(page.get_by_test_id("send")).to_be_disabled()
        human_stack.start_api()
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)
        await expect(page.get_by_test_id("problem")).to_be_hidden()
        await expect(page.get_by_test_id("message-user")).to_have_count(1)


async def test_a_prompt_whose_answer_was_lost_is_sent_again_and_runs_once(human_stack: Stack) -> None:
    keys: list[str] = []

    async def lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()  # the server has the prompt, and dies before it can say so
            await route.abort("connectionreset")
        else:
            await route.continue_()

    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await page.route("**/agent/generate", lost)
        await ask(page, "What is 17 * 23?")
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)
        await expect(page.get_by_test_id("problem")).to_be_hidden()
        await has_finished(page)
        assert (len(keys), len(set(keys))) == (2, 1)
        await expect(page.get_by_test_id("message-user")).to_have_count(1)
        async with human_stack.client() as client:
            runs = (await client.get(f"/api/apps/{page.url.partition('#')[2]}/agent/runs")).json()["runs"]
        assert len(runs) == 1


async def test_a_prompt_that_could_not_be_sent_is_in_the_box_again(human_stack: Stack) -> None:
    keys: list[str] = []
    back = False

    async def away(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        await (route.continue_() if back else route.abort("connectionrefused"))

    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await page.clock.install()
        await page.reload()
        await page.route("**/agent/generate", away)
        prompt, problem = page.get_by_test_id("prompt"), page.get_by_test_id("problem")
        await ask(page, "What is 17 * 23?")
        await expect(problem).to_contain_text("Trying again")
        await prompt.fill("And then?")
        await page.clock.fast_forward(60_000)
        await expect(problem).to_contain_text("could not be reached")
        await expect(prompt).to_have_value("What is 17 * 23?\nAnd then?")
        await expect(page.get_by_test_id("message-user")).to_have_count(0)
        back = True
        await ask(page, "What is 17 * 23?")
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)
        await expect(problem).to_be_hidden()
        assert len(set(keys)) == 1


async def test_without_a_token_of_its_own_the_page_asks_for_one(human_stack: Stack) -> None:
    # By another name the server gives no token, and the browser sees no secure context.
    url = human_stack.url.replace("127.0.0.1", "elsewhere.test")
    async with chromium() as browser, watched_page(browser, url) as page:
        await page.get_by_test_id("token").fill("not-a-token")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("did not accept")).to_be_visible()
        await page.get_by_test_id("token").fill(human_stack.token())
        await page.keyboard.press("Enter")
        await ask(page, "What is 17 * 23?")
        await expect(answers(page).last).to_contain_text("391", timeout=PATIENCE_MS)


async def test_what_a_user_writes_is_text_and_a_narrow_page_does_not_overflow(human_stack: Stack) -> None:
    markup = '<img src=x onerror="document.title=1"> [a](javascript:alert(1)) ' + "x" * 300
    async with chromium() as browser, watched_page(browser, human_stack.url) as page:
        await page.set_viewport_size({"width": 360, "height": 700})
        await ask(page, markup)
        await has_finished(page)
        await expect(page.get_by_test_id("message-user")).to_contain_text('<img src=x onerror="')
        assert await page.locator("#conversation img, #conversation a").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
