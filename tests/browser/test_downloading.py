"""What the page offers to save is what the server has, byte for byte, under a name that says what it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import soundfile
from playwright.async_api import Download, Page, expect

from dgx_music.generation.v1.generation_pb2 import GetMidiRequest
from tests.support.studio_page import wait_for_state
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

PROMPT = 'lo-fi / "piano" <b> .. at 84 BPM? 🎹'
FORBIDDEN_IN_NAMES = set('<>:"/\\|?*\0')
FORMATS = {"FLAC": "FLAC", "MP3": "MP3", "Opus": "OGG", "WAV, 16 bits": "WAV"}
"""Entry of the menu → what libsndfile calls the file."""


async def save_as(page: Page, entry: str) -> Download:
    await page.locator("#now").get_by_role("button", name="Save as").click()
    async with page.expect_download() as download:
        await page.get_by_role("menuitem", name=entry).first.click()
    return await download.value


async def read(download: Download) -> bytes:
    name = download.suggested_filename
    assert not FORBIDDEN_IN_NAMES & set(name), name
    assert "piano" in name
    return Path(await download.path()).read_bytes()


async def test_files_are_those_of_the_server(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate(PROMPT, 2.0, seed=5)
    watched = await open_studio(f"/#/take/{generation_id}")
    page = watched.page
    await wait_for_state(page, "Finished")
    async with page.expect_download() as saved:
        await page.locator("#now").get_by_role("link", name="WAV", exact=True).click()
    assert await read(await saved.value) == await studio.file(generation_id)
    for entry, kind in FORMATS.items():
        with soundfile.SoundFile(io.BytesIO(await read(await save_as(page, entry)))) as file:
            assert file.format == kind
            assert file.frames / file.samplerate == pytest.approx(2.0, abs=0.05)


async def test_notes_stems_and_session_are_saved(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate(PROMPT, 4.0, seed=5)
    watched = await open_studio(f"/#/take/{generation_id}")
    page = watched.page
    await wait_for_state(page, "Finished")
    expected = await studio.music.GetMidi(GetMidiRequest(generation_id=generation_id), timeout=60)
    assert await read(await save_as(page, "MIDI")) == expected.midi
    with zipfile.ZipFile(io.BytesIO(await read(await save_as(page, "Stems")))) as stems:
        assert {Path(name).suffix for name in stems.namelist()} == {".wav"}
        assert len(stems.namelist()) >= 3


async def test_file_is_dragged_out_of_the_page(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate("house at 124 BPM", 1.0)
    watched = await open_studio(f"/#/take/{generation_id}")
    await wait_for_state(watched.page, "Finished")
    link = watched.page.locator("#now").get_by_role("link", name="WAV", exact=True)
    dragged = await link.evaluate(
        """(link) => {
            const dataTransfer = new DataTransfer();
            link.dispatchEvent(new DragEvent("dragstart", {dataTransfer, bubbles: true}));
            return dataTransfer.getData("DownloadURL");
        }"""
    )
    media_type, name, address = dragged.split(":", 2)
    assert media_type == "audio/wav"
    assert name.endswith(".wav")
    response = await watched.page.request.get(address)
    assert await response.body() == await studio.file(generation_id)


async def test_two_tabs_tell_the_same(open_studio: OpenPage, studio: StudioProcesses) -> None:
    """A take that is rated and deleted in one tab is so in the other, once that is looked at."""
    generation_id = await studio.generate("a take for two tabs", 1.0)
    first = await open_studio(f"/#/take/{generation_id}")
    second = await open_studio(f"/#/take/{generation_id}")
    await wait_for_state(first.page, "Finished")
    await wait_for_state(second.page, "Finished")
    await first.page.locator("#now-title").click(force=True)
    async with first.page.expect_response("**/api/RateGeneration") as rated:
        await first.page.keyboard.press("5")
    assert (await rated.value).ok
    await first.page.locator("#now .star.on").first.wait_for()
    assert (await studio.get(generation_id)).rating == 5
    await second.page.reload()
    await second.page.locator("#now .star.on").first.wait_for()
    # Both hear at the same time, and neither needs more connections than a browser has.
    for tab in (first, second):
        await tab.page.locator("#now").get_by_role("button", name="Play", exact=True).click()
        await tab.page.wait_for_function("() => window.dgxStudio.playback().position > 0")
    await first.page.locator(f'.take-row[data-id="{generation_id}"]').focus()
    await first.page.keyboard.press("Delete")
    await first.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await first.page.goto("about:blank")  # Until then it could be undone.
    while generation_id in {one.id for one in await studio.newest_ones()}:
        pass  # The server is told while the page goes away, which no event says.
    await second.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(second.page.locator(f'.take-row[data-id="{generation_id}"]')).to_have_count(0)
