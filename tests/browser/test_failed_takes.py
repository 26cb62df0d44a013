"""A take that fails says why, and is heard from its beginning when it is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.studio_processes import SERVER, StudioProcesses, studio_processes
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FAILPOINT = "DGX_MUSIC_FAILPOINT"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StudioProcesses]:
    """Its first server fails at the second chunk of each take, and tries none again."""
    settings = {FAILPOINT: "generation.before_chunk:raise@2", "DGX_MUSIC_MAX_ATTEMPTS": "1"}
    async with studio_processes(tmp_path_factory.mktemp("studio"), **settings) as processes:
        yield processes


async def test_failed_take_is_tried_again(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    watched.allow("/live", "status 50[0-9]", "Failed to load resource", "net::ERR_")
    page = watched.page
    await page.get_by_role("textbox", name="Prompt", exact=True).first.fill("house at 120 BPM")
    await page.locator("#compose").get_by_label("Duration, s").fill("4")
    await page.keyboard.press("Control+Enter")
    failed = page.locator("#compose li.take.failed")
    await expect(failed).to_contain_text("Failed: an unexpected error occurred")
    now = page.locator("#now")
    await expect(now.locator(".progress-text")).to_contain_text("an unexpected error occurred")
    generation_id = await page.evaluate("window.dgxStudio.playback().id")

    await studio.kill(SERVER)
    del studio.settings[FAILPOINT]
    await studio.start(SERVER)
    await failed.get_by_role("button", name="Try again").click()
    await expect(now.locator(".now-head .badge")).to_have_text("Finished")
    await expect(page.locator("#compose li.take")).to_have_count(0)
    assert (await studio.get(generation_id)).attempt == 2
    captured = await watched.captured_samples(generation_id)
    assert captured == await studio.samples(generation_id)
    await now.get_by_role("button", name="Play", exact=True).click()
    await page.wait_for_function("() => window.dgxStudio.playback().state === 'playing'")
