"""Generating and hearing a take in the page: the samples that it plays are those that were generated, bit for bit."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from dgx_music.generation.v1.generation_pb2 import GetEngineStatusRequest
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_page import compose, wait_for_frames, wait_for_state
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE, FRAME_BYTES = 32_000, 8
"""Of the sketch model: stereo, float32."""
LONG_SECONDS = 3600
"""Long enough that it is still being generated when it is cancelled."""


async def test_page_hears_the_samples_as_generated(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    (generation_id,) = await compose(watched.page, "house at 124 BPM in A minor", duration=4, seed=7)
    await wait_for_state(watched.page, "Finished")
    finished = await studio.wait_until_final(generation_id)
    assert (finished.state, finished.seed) == (storage.GENERATION_STATE_COMPLETED, 7)
    await wait_for_frames(watched.page, generation_id, 4 * RATE)
    heard = await watched.captured_samples(generation_id)
    assert len(heard) == 4 * RATE * FRAME_BYTES
    assert heard == await studio.samples(generation_id)


async def test_take_is_heard_while_it_is_made_and_cancelled(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    # The stream of a cancelled take has no end, and can't be resumed.
    watched.allow("/live.*ERR_INCOMPLETE_CHUNKED", "ERR_INCOMPLETE_CHUNKED.*/live", "409.*/live")
    page = watched.page
    (generation_id,) = await compose(page, "techno at 130 BPM", duration=LONG_SECONDS, seed=1)
    await page.wait_for_function("() => window.dgxStudio.playback().position > 0.5", timeout=120_000)
    playback = await page.evaluate("window.dgxStudio.playback()")
    assert (playback["id"], playback["level"], playback["state"]) == (generation_id, "LIVE", "playing")
    assert (await studio.get(generation_id)).state == storage.GENERATION_STATE_PROCESSING
    await expect(page.locator("#now")).to_contain_text("to go")

    await page.locator("#now").get_by_role("button", name="Cancel", exact=True).click()
    await wait_for_state(page, "Cancelled")
    assert (await studio.wait_until_final(generation_id)).state == storage.GENERATION_STATE_CANCELLED
    # The engine is free: it makes the next take at once.
    next_id = await studio.generate("house", 1.0)
    status = await studio.music.GetEngineStatus(GetEngineStatusRequest(), timeout=60)
    # The next one itself may be there for a moment after it is completed.
    assert generation_id not in {request.generation_id for request in status.requests}
    assert (await studio.get(next_id)).state == storage.GENERATION_STATE_COMPLETED
    heard = await watched.captured_samples(generation_id)
    assert len(heard) >= 0.5 * RATE * FRAME_BYTES


async def test_several_takes_differ_in_their_seeds(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    ids = await compose(watched.page, "ambient in D major", duration=1, takes=3, seed=40)
    for generation_id in ids:
        await studio.wait_until_final(generation_id)
    assert sorted([(await studio.get(one)).seed for one in ids]) == [40, 41, 42]
    await expect(watched.page.locator("#now")).to_contain_text("ambient in D major")


async def test_error_of_the_server_stands_at_its_field(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    watched.allow("status 400", "Failed to load resource")
    page = watched.page
    await page.get_by_role("textbox", name="Prompt", exact=True).first.fill("house")
    await page.locator("#compose").get_by_label("Duration").first.fill("99999")
    await page.locator("#compose").get_by_role("button", name="Generate").click()
    field = page.locator("#compose .field.invalid")
    await expect(field).to_contain_text("Duration")
    assert await field.locator("input").get_attribute("aria-invalid") == "true"
    described = await field.locator("input").get_attribute("aria-describedby")
    assert described
    texts = [await page.locator(f"#{one}").inner_text() for one in described.split()]
    assert any("3600" in text or "duration" in text.lower() for text in texts), texts
    assert await page.evaluate("document.activeElement.closest('.field.invalid') !== null")
