"""Several takes in the works: their place in the queue, cancelling and trying again from the list, and a server that is
lost while a request is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_processes import StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """Makes one take at a time, so that the others wait."""
    settings = {
        "DGX_MUSIC_MAX_BATCH_SIZE": "1",
        "DGX_MUSIC_WORKER_SLOTS": "1",
        "DGX_MUSIC_PREEMPT_AFTER_SECONDS": "600",
    }
    async with studio_processes(tmp_path_factory.mktemp("studio"), **settings) as processes:
        yield processes


async def describe(page: Page, prompt: str, seconds: float, takes: int = 1) -> None:
    """Fills the form."""
    form = page.locator("#compose")
    await form.get_by_role("textbox", name="Prompt", exact=True).first.fill(prompt)
    await form.get_by_label("Duration, s").fill(str(seconds))
    await form.get_by_label("Takes", exact=True).fill(str(takes))
    await form.get_by_label("Listen live").uncheck()


async def test_takes_wait_for_their_turn(open_studio: OpenPage, studio: StudioProcesses) -> None:
    await studio.generate("house", 2.0)  # So that there is a speed to estimate by.
    watched = await open_studio()
    watched.allow(
        "ERR_INCOMPLETE_CHUNKED.*", "/live.*ERR_INCOMPLETE_CHUNKED"
    )  # A cancelled take's samples have no end.
    page = watched.page
    await describe(page, "techno at 130 BPM", 3600, takes=3)
    await page.keyboard.press("Control+Enter")
    works = page.locator("#compose").get_by_role("list").locator("li.take")
    await expect(works).to_have_count(3)
    first, second, third = (works.nth(index) for index in range(3))
    await expect(first.locator(".take-text")).to_have_text(re.compile(r"Generating: \d+ %"))
    wait = re.compile(r"Next in the queue, about [\d.]+ (s|min|h) until it begins")
    await expect(second.locator(".take-text")).to_have_text(wait)
    await expect(third.locator(".take-text")).to_have_text(re.compile("Number 2 in the queue"))
    await expect(page.locator("#now .progress-text")).to_contain_text("Generating")

    for left in (2, 1, 0):
        await works.first.get_by_role("button", name="Cancel").click()
        await expect(works).to_have_count(left)
        if left == 2:  # The next one begins, and the last one moves up.
            await expect(works.last.locator(".take-text")).to_contain_text("Next in the queue")
    listed = await studio.music.ListGenerations(storage.ListGenerationsRequest(page_size=3), timeout=60)
    assert {one.state for one in listed.generations} == {storage.GENERATION_STATE_CANCELLED}


async def test_request_whose_answer_is_lost_is_sent_again_as_the_same(
    open_studio: OpenPage, studio: StudioProcesses
) -> None:
    watched = await open_studio()
    watched.allow("net::ERR_", "Failed to load resource")
    page = watched.page
    await describe(page, "an answer is lost", 1, takes=2)
    lost = asyncio.Event()

    async def lose(route: Route) -> None:
        await route.fetch()  # The server gets it.
        await route.abort("connectionreset")
        lost.set()

    await page.route("**/api/BatchCreateGenerations", lose, times=1)
    await page.keyboard.press("Control+Enter")
    await lost.wait()
    await expect(page.locator(".form-error")).to_contain_text("does not answer")
    async with page.expect_response("**/api/BatchCreateGenerations") as answer:
        await page.keyboard.press("Control+Enter")
    created = [one["id"] for one in (await (await answer.value).json())["generations"]]
    await expect(page.locator(".form-error")).to_be_empty()
    request = storage.ListGenerationsRequest(prompt_contains="an answer is lost")
    listed = await studio.music.ListGenerations(request, timeout=60)
    assert sorted(one.id for one in listed.generations) == sorted(created)
    assert len(created) == 2


async def test_sketch_offers_nothing_that_it_can_not_do(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate("house", 2.0)
    page = (await open_studio(f"/#/take/{generation_id}")).page
    await page.get_by_text("Sections, further prompts, lyrics").click()
    avoid = page.get_by_label("Avoid")
    await expect(avoid).to_be_disabled()
    await expect(page.locator(".field", has=avoid)).to_contain_text("dgx-music models pull musicgen-small")
    wave = page.get_by_role("slider", name="Position in the take")
    await expect(wave).to_have_attribute("aria-valuemax", "2.0")
    await wave.focus()
    await page.keyboard.press("o")
    # Nothing is before the start.
    await expect(page.get_by_role("button", name="Clear the selection")).to_be_hidden()
    await page.keyboard.press("Shift+ArrowRight")
    await expect(page.get_by_role("button", name="Clear the selection")).to_be_visible()
    await expect(page.get_by_role("button", name="Replace this part")).to_be_disabled()
    await expect(page.locator(".edit-bar")).to_contain_text("No installed model can continue audio")
    await page.get_by_role("button", name="Go on from it").click()
    await expect(page.get_by_role("menuitem", name="Add music after it")).to_be_disabled()
    await page.get_by_role("menuitem", name="Make a variation").click()
    await expect(page.get_by_label("What to make")).to_have_value("variation")
    await expect(page.get_by_label("Prompt", exact=True).first).to_have_value("house")
