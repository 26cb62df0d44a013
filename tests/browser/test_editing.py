"""Editing a take from its waveform: by mouse and by keyboard, and what is kept is kept sample for sample."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.async_api import Page, expect

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_page import compose, send, wait_for_state
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE, SECONDS = 8_000, 8.0


@pytest.fixture(scope="module")
def studio(tone_studio: StudioProcesses) -> StudioProcesses:
    return tone_studio


async def open_take(open_studio: OpenPage, studio: StudioProcesses) -> tuple[Page, str]:
    source_id = await studio.generate("a low tone", SECONDS, seed=220)
    watched = await open_studio(f"/#/take/{source_id}")
    await wait_for_state(watched.page, "Finished")
    await expect(watched.page.get_by_role("slider", name="Position in the take")).to_have_attribute(
        "aria-valuemax", f"{SECONDS:.1f}"
    )
    return watched.page, source_id


async def final_samples(studio: StudioProcesses, generation_id: str) -> np.ndarray:
    return np.frombuffer(await studio.samples(generation_id, AUDIO_LEVEL_FINAL), "<f4").reshape(-1, 2)


async def test_part_is_selected_by_mouse_and_replaced(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page, source_id = await open_take(open_studio, studio)
    wave = page.get_by_role("slider", name="Position in the take")
    await wave.scroll_into_view_if_needed()
    box = await wave.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] / 4, y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] / 2, y, steps=5)
    await page.mouse.up()
    await page.get_by_role("button", name="Replace this part").click()
    form = page.locator("#compose")
    assert float(await form.get_by_label("From, s").first.input_value()) == pytest.approx(SECONDS / 4, abs=0.1)
    assert float(await form.get_by_label("To, s").first.input_value()) == pytest.approx(SECONDS / 2, abs=0.1)
    await form.get_by_role("textbox", name="Prompt", exact=True).first.fill("a higher tone")
    await form.get_by_label("Seed").fill("440")
    (generation_id,) = await send(page)
    finished = await studio.wait_until_final(generation_id)
    assert finished.state == storage.GENERATION_STATE_COMPLETED, finished.error_message
    before, after = await final_samples(studio, source_id), await final_samples(studio, generation_id)
    assert len(before) == len(after)
    quarter = round(SECONDS / 4 * RATE)
    assert np.array_equal(before[: quarter - RATE], after[: quarter - RATE])
    assert np.array_equal(before[-quarter:], after[-quarter:])
    assert not np.array_equal(before[quarter : 2 * quarter], after[quarter : 2 * quarter])


async def test_part_is_selected_by_keyboard(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page, _ = await open_take(open_studio, studio)
    wave = page.get_by_role("slider", name="Position in the take")
    await wave.focus()
    await page.keyboard.press("Home")
    for _ in range(2):
        await page.keyboard.press("ArrowRight")
    for _ in range(3):
        await page.keyboard.press("Shift+ArrowRight")
    assert await wave.get_attribute("aria-valuenow") == "5.0"
    part = page.get_by_role("group", name="Selected part, in seconds")
    assert [await part.get_by_role("spinbutton").nth(index).input_value() for index in (0, 1)] == ["2.00", "5.00"]
    await page.keyboard.press("Escape")
    assert await part.get_by_role("spinbutton").first.input_value() == ""


@pytest.mark.parametrize(("item", "kept_from"), [("Add music after it", 0), ("Add music before it", 2)])
async def test_take_is_extended(open_studio: OpenPage, studio: StudioProcesses, item: str, kept_from: int) -> None:
    page, source_id = await open_take(open_studio, studio)
    await page.get_by_role("button", name="Go on from it").click()
    await page.get_by_role("menuitem", name=item).click()
    await page.locator("#compose").get_by_label("Add, s").fill("2")
    (generation_id,) = await send(page)
    finished = await studio.wait_until_final(generation_id)
    assert finished.state == storage.GENERATION_STATE_COMPLETED, finished.error_message
    before, after = await final_samples(studio, source_id), await final_samples(studio, generation_id)
    assert len(after) == len(before) + 2 * RATE
    first = kept_from * RATE
    middle = slice(RATE, len(before) - RATE)  # The joint may be crossfaded.
    assert np.array_equal(before[middle], after[first : first + len(before)][middle])


async def test_settings_of_a_take_are_used_again(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page, source_id = await open_take(open_studio, studio)
    await page.get_by_role("button", name="Use these settings").click()
    (generation_id,) = await send(page)
    await studio.wait_until_final(generation_id)
    assert np.array_equal(await final_samples(studio, source_id), await final_samples(studio, generation_id))


async def test_loop_of_bars_repeats(open_studio: OpenPage, studio: StudioProcesses) -> None:
    watched = await open_studio()
    await watched.page.locator("#compose").get_by_label("Model").select_option("sketch")
    (generation_id,) = await compose(watched.page, "house at 120 BPM in A minor", bars=2)
    finished = await studio.wait_until_final(generation_id)
    assert finished.loop.bars == 2
    assert len(await final_samples(studio, generation_id)) == 4 * 32_000  # 2 bars of 4 beats at 120 BPM.
    await wait_for_state(watched.page, "Finished")
    await watched.page.locator("#now").get_by_role("button", name="Repeat", exact=True).click()
    await watched.page.wait_for_function("() => window.dgxStudio.playback().state === 'playing'")


async def test_selection_snaps_to_bars(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate("house at 120 BPM in A minor", 12.0, model_name="sketch", seed=1)
    page = (await open_studio(f"/#/take/{generation_id}")).page
    await expect(page.get_by_role("slider", name="Position in the take")).to_have_attribute("aria-valuemax", "12.0")
    part = page.get_by_role("group", name="Selected part, in seconds")
    for index, seconds in enumerate(("2.3", "5.4")):
        await part.get_by_role("spinbutton").nth(index).fill(seconds)
    await part.get_by_role("spinbutton").nth(1).press("Enter")
    await part.get_by_role("button", name="Move the selection to the nearest bars").click()
    await expect(part.get_by_role("spinbutton").first).not_to_have_value("2.30")
    start, end = [float(await part.get_by_role("spinbutton").nth(index).input_value()) for index in (0, 1)]
    assert (start, end) == (pytest.approx(2.0, abs=0.03), pytest.approx(6.0, abs=0.03))  # Bars of 4 beats at 120 BPM.
