"""What leaves the player for the sound card: the samples of the file, and a part that is repeated."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from playwright.async_api import Page, expect

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE, SECONDS = 32_000, 4.0
EDGE = 128
"""Frames over which a part fades that is repeated and was not made to be."""
RECORD = """
() => {
    const { context, node } = window.dgxStudio.audioOutput();
    const recorder = context.createScriptProcessor(16384, 2, 2);
    const heard = (window.heard = []);
    recorder.onaudioprocess = ({ inputBuffer }) =>
        heard.push([inputBuffer.getChannelData(0).slice(), inputBuffer.getChannelData(1).slice()]);
    node.connect(recorder).connect(context.destination);
}
"""
READ = """
() => {
    const left = window.heard.flatMap(([one]) => [...one]);
    const right = window.heard.flatMap(([, one]) => [...one]);
    const bytes = new Uint8Array(Float32Array.from([...left, ...right]).buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
    return btoa(text);
}
"""
FAIL_TO_LOAD = """
() => {
    const { addModule } = AudioWorklet.prototype;
    window.loads = 0;
    AudioWorklet.prototype.addModule = function (url) {
        window.loads += 1;
        const lost = new DOMException("Unable to load a worklet's module.", "AbortError");
        return window.loads < 3 ? Promise.reject(lost) : addModule.call(this, url);
    };
}
"""
"""What the browser does while the server is away: the script of a worklet can't be intercepted."""
PLAYBACK = "() => window.dgxStudio.playback().state === 'STATE'"


async def record(page: Page) -> None:
    """Begins to record, once the output has been opened by playing and pausing."""
    await page.get_by_role("button", name="Play", exact=True).click()
    await page.wait_for_function(PLAYBACK.replace("STATE", "playing"))
    await page.get_by_role("button", name="Pause", exact=True).click()
    await page.wait_for_function(PLAYBACK.replace("STATE", "paused"))
    await page.evaluate(RECORD)


async def recorded(page: Page) -> np.ndarray:
    """Returns what was recorded, from the first sound on [frames, 2]."""
    samples = np.frombuffer(base64.b64decode(await page.evaluate(READ)), "<f4").reshape(2, -1).T
    first = int(np.flatnonzero(samples.any(axis=1))[0])
    return samples[first:]


async def open_take(open_studio: OpenPage, studio: StudioProcesses) -> tuple[Page, np.ndarray]:
    generation_id = await studio.generate("house at 120 BPM", SECONDS, seed=3)
    samples = np.frombuffer(await studio.samples(generation_id, AUDIO_LEVEL_FINAL), "<f4").reshape(-1, 2)
    watched = await open_studio(f"/#/take/{generation_id}")
    watched.allow(
        "ScriptProcessorNode is deprecated"
    )  # A worklet would need a script, which the page's policy forbids.
    page = watched.page
    wave = page.get_by_role("slider", name="Position in the take")
    await expect(wave).to_have_attribute("aria-valuemax", f"{SECONDS:.1f}")
    return page, samples


async def test_sound_is_the_file(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page, samples = await open_take(open_studio, studio)
    await record(page)
    await page.get_by_role("button", name="Back to the start").click()
    await page.get_by_role("button", name="Play", exact=True).click()
    await page.wait_for_function(PLAYBACK.replace("STATE", "ended"))
    heard = await recorded(page)
    expected = samples[int(np.flatnonzero(samples.any(axis=1))[0]) :]
    length = min(len(heard), len(expected))
    assert length > 3 * RATE
    assert np.array_equal(heard[:length], expected[:length])


async def test_part_is_repeated_to_the_sample(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page, samples = await open_take(open_studio, studio)
    await record(page)
    part = page.get_by_role("group", name="Selected part, in seconds").get_by_role("spinbutton")
    await part.nth(0).fill("0.5")
    await part.nth(1).fill("1.25")
    await part.nth(1).press("Enter")
    await page.get_by_role("button", name="Repeat", exact=True).click()
    await page.get_by_role("button", name="Play", exact=True).click()
    await page.wait_for_function("() => window.heard.length >= 8")
    heard = await recorded(page)
    start, end = RATE // 2, RATE * 5 // 4
    once = samples[start:end].copy()
    fade = np.minimum(np.arange(len(once)), np.arange(len(once))[::-1])[:, None].clip(max=EDGE) / EDGE
    once *= fade.astype(np.float32)
    begin = find(heard, once[EDGE : EDGE + 1000]) - EDGE
    rounds = (len(heard) - begin) // len(once)
    assert rounds >= 2
    for index in range(1, rounds):
        one = heard[begin + index * len(once) :][: len(once)]
        assert np.abs(one - once).max() < 1e-6, f"round {index}"


def find(samples: np.ndarray, pattern: np.ndarray) -> int:
    """Returns where the pattern is first."""
    first = np.flatnonzero((samples[: len(samples) - len(pattern)] == pattern[0]).all(axis=1))
    return next(int(at) for at in first if np.array_equal(samples[at : at + len(pattern)], pattern))


async def test_server_is_away_when_the_first_take_is_to_sound(open_studio: OpenPage, studio: StudioProcesses) -> None:
    generation_id = await studio.generate("house at 120 BPM", SECONDS, seed=3)
    page = (await open_studio(f"/#/take/{generation_id}")).page
    await page.evaluate(FAIL_TO_LOAD)
    await page.get_by_role("button", name="Play", exact=True).click()
    await page.wait_for_function(PLAYBACK.replace("STATE", "playing"))
    assert await page.evaluate("window.loads") == 3
