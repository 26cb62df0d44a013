"""Files that are dropped on the form or chosen: a sound becomes a clip, whatever it is called, and a broken one is
refused with the reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from playwright.async_api import Locator, Page, expect

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_library import ATTACKED
from tests.support.studio_page import send
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage, WatchedPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE, SECONDS = 8_000, 2.0
HOSTILE_NAME = "<img src=x onerror=window.attacked=1> \u202egpj.wav"


@pytest.fixture(scope="module")
def studio(tone_studio: StudioProcesses) -> StudioProcesses:
    return tone_studio


def tone() -> bytes:
    time = np.arange(round(SECONDS * RATE)) / RATE
    file = io.BytesIO()
    soundfile.write(file, np.stack([0.3 * np.sin(2 * np.pi * 440 * time)] * 2, axis=1), RATE, format="WAV")
    return file.getvalue()


async def drop(page: Page, target: Locator, name: str, content: bytes) -> None:
    """Drags a file from the desktop onto the target."""
    transfer = await page.evaluate_handle(
        """([name, text]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type: "audio/wav"}));
            return transfer;
        }""",
        [name, content.decode("latin-1")],
    )
    for event in ("dragenter", "dragover", "drop"):
        await target.dispatch_event(event, {"dataTransfer": transfer})


async def earlier_music(watched: WatchedPage) -> Locator:
    """Chooses to add music after a file, and returns the group that asks for it."""
    await watched.page.get_by_label("What to make").select_option("extend-right")
    return watched.page.locator("fieldset").filter(has=watched.page.get_by_text("Earlier music", exact=True))


@pytest.mark.parametrize("way", ["dropped", "chosen"])
async def test_file_is_extended(open_studio: OpenPage, studio: StudioProcesses, way: str) -> None:
    watched = await open_studio()
    page = watched.page
    group = await earlier_music(watched)
    if way == "dropped":
        await drop(page, group.locator(".drop"), HOSTILE_NAME, tone())
    else:
        file = {"name": HOSTILE_NAME, "mimeType": "audio/wav", "buffer": tone()}
        await group.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    await expect(group.locator(".source-chip")).to_contain_text("2.0 s")
    await expect(group.locator(".source-chip")).to_contain_text("<img src=x")
    await page.get_by_role("textbox", name="Prompt", exact=True).first.fill("ambient in D major")
    await page.get_by_label("Add, s").fill("2")
    (generation_id,) = await send(page)
    finished = await studio.wait_until_final(generation_id)
    assert finished.state == storage.GENERATION_STATE_COMPLETED, finished.error_message
    # What was uploaded is the beginning of the new take, sample for sample, at the level that export gives all of it.
    samples = np.frombuffer(await studio.samples(generation_id, AUDIO_LEVEL_FINAL), "<f4").reshape(-1, 2)
    assert len(samples) == 4 * RATE
    original, _ = soundfile.read(io.BytesIO(tone()), dtype="float32")
    kept = slice(0, round(1.5 * RATE))
    gain = float(np.dot(samples[kept, 0], original[kept, 0]) / np.dot(original[kept, 0], original[kept, 0]))
    assert np.abs(samples[kept] - gain * original[kept]).max() < 1e-3
    assert not await page.evaluate(ATTACKED)


@pytest.mark.parametrize("content", [b"RIFF\xff\xff\xff\xffWAVEfmt ", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 500])
async def test_broken_file_is_refused_with_the_reason(open_studio: OpenPage, content: bytes) -> None:
    watched = await open_studio()
    watched.allow("status 400.*/api/clips", "Failed to load resource.*400")
    group = await earlier_music(watched)
    await drop(watched.page, group.locator(".drop"), "broken.wav", content)
    problem = group.get_by_role("alert")
    await expect(problem).to_contain_text("broken.wav: ")
    await expect(group.locator(".drop")).to_be_visible()  # Another one can be dropped.
    assert len(await problem.inner_text()) > len("broken.wav: ") + 10


async def test_file_that_misses_its_place_does_not_replace_the_page(open_studio: OpenPage) -> None:
    watched = await open_studio()
    await drop(watched.page, watched.page.locator("#history"), "tone.wav", tone())
    await expect(watched.page.locator("#compose form")).to_be_visible()
    assert "tone.wav" not in watched.page.url
