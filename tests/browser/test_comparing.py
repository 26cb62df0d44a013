"""Takes compared in the page: in step to the sample, level-matched, blind, ranked, with their pictures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

READY = ".compare-play:not([disabled])"
MIX = """
async ({ rate, frames, script, takes }) => {
    const { Mixer } = await import("/static/js/compare/sound/mixer.js");
    const context = new OfflineAudioContext({ numberOfChannels: 1, length: frames, sampleRate: rate });
    const ramps = takes.map(({ sign, length }) => ({
        channels: [Float32Array.from({ length }, (_, n) => (sign * (n + 1)) / 2 ** 20)],
    }));
    const mixer = await Mixer.create(context, ramps, { channels: 1 });
    const run = async (commands) => {
        for (const [name, ...values] of commands) {
            const done = new Promise((resolve) => mixer.addEventListener("position", resolve, { once: true }));
            mixer[name](...values);
            await done;  // The audio thread has read the message.
        }
    };
    await run(script[0].commands);
    for (const { at, commands } of script.slice(1)) {
        context.suspend(at / rate).then(async () => {
            await run(commands);
            context.resume();
        });
    }
    const rendered = await context.startRendering();
    return Array.from(rendered.getChannelData(0), (sample) => sample * 2 ** 20);
}
"""
"""Renders takes that are ramps, so that each sample says which one it is and of which take."""


async def mix(page: Page, frames: int, *script: tuple[int, list[list[Any]]], lengths: tuple[int, int]) -> Any:
    steps = [{"at": at, "commands": commands} for at, commands in script]
    takes = [{"sign": sign, "length": length} for sign, length in zip((1, -1), lengths, strict=True)]
    given = {"rate": 32_000, "frames": frames, "script": steps, "takes": takes}
    return np.array(await page.evaluate(MIX, given))


DRAWN = """
async () => {
    const colours = (canvas) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size;
    };
    const isDrawn = () => [...document.querySelectorAll("#compare canvas[role=img]")].every((one) => colours(one) > 20);
    while (!isDrawn()) await new Promise(requestAnimationFrame);
}
"""
"""Waits until all pictures have been drawn."""

FADE = 256
"""8 ms at 32 kHz."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def takes(studio: StudioProcesses) -> list[str]:
    """Three finished takes; the last is mono at 48 kHz, and shorter."""
    mono = {"channels": 1, "sample_rate_hz": 48_000}
    return [
        await studio.generate("unmistakable prompt 0", 6.0, seed=40),
        await studio.generate("unmistakable prompt 1", 6.0, seed=41),
        await studio.generate("unmistakable prompt 2", 4.0, seed=42, output=mono),
    ]


async def compare(page: Page, ids: list[str]) -> None:
    """Opens the comparison of takes as the history does."""
    opening = "async (ids) => (await import('/static/js/state.js')).emit('compare-open', { ids })"
    await page.evaluate(opening, ids)
    await page.locator(READY).wait_for()


async def saved_rankings(studio: StudioProcesses) -> list[storage.Comparison]:
    return list((await studio.music.ListComparisons(storage.ListComparisonsRequest())).comparisons)


async def test_takes_are_switched_in_step_to_the_sample(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    start: list[list[Any]] = [["select", 0], ["setGains", [0, 0]], ["play"]]
    heard = await mix(page, 6400, (0, start), (2560, [["select", 1]]), lengths=(20_000, 5000))
    samples = np.arange(1, len(heard) + 1)
    begin = int(np.argmax(heard != samples))
    assert 2560 <= begin < 4000
    after = begin + FADE
    # Before the switch sample n of the first take, after it sample n of the second, and then that one's end.
    np.testing.assert_array_equal(heard[:begin], samples[:begin])
    np.testing.assert_array_equal(heard[after:5000], -samples[after:5000])
    assert not heard[5000:].any()
    angle = np.arange(1, FADE + 1) / FADE * np.pi / 2
    expected = (np.cos(angle) - np.sin(angle)) * samples[begin:after]
    np.testing.assert_allclose(heard[begin:after], expected, rtol=1e-4, atol=0.01)


async def test_loop_is_as_long_as_what_is_selected_and_has_no_click(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    start: list[list[Any]] = [["select", 0], ["setLoop", [1000 / 32_000, 3000 / 32_000]], ["play"]]
    heard = await mix(page, 9600, (0, start), lengths=(20_000, 20_000))
    np.testing.assert_array_equal(heard[:3000], np.arange(1, 3001))
    for round_ in range(3):
        first = 3000 + 2000 * round_
        inside = np.arange(first + FADE, first + 2000)
        np.testing.assert_array_equal(heard[inside], inside - 2000 * (round_ + 1) + 1)
    assert np.abs(np.diff(heard)).max() < 40  # A jump without a fade would be of 2000.


async def test_pause_and_seek_fade_and_gain_is_applied(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    start: list[list[Any]] = [["select", 0], ["setGains", [-6.0206, 0]], ["play"]]
    script = [(0, start), (2560, [["seek", 12_000 / 32_000]]), (5120, [["pause"]])]
    heard = await mix(page, 8000, *script, lengths=(20_000, 20_000))
    np.testing.assert_allclose(heard[:2560], np.arange(1, 2561) / 2, rtol=1e-4)
    jump = int(np.argmax(np.abs(np.diff(heard)) > 1))
    landed = jump + FADE + 2
    np.testing.assert_allclose(heard[landed:5120], (12_000 + np.arange(landed, 5120) - jump) / 2, rtol=2e-4)
    assert np.abs(np.diff(heard)).max() < 60
    assert 5120 < np.flatnonzero(heard)[-1] < 7000


async def test_samples_are_those_of_the_file_even_if_the_connection_breaks(
    open_studio: OpenPage, studio: StudioProcesses, takes: list[str]
) -> None:
    watched = await open_studio()
    cuts = [100_001, 64]

    async def cut(route: Route) -> None:
        response = await route.fetch()
        body = await response.body()
        await route.fulfill(response=response, body=body[: cuts.pop(0)] if cuts else body)

    await watched.page.route(re.compile(r"/live\?"), cut)
    load = """
    async ({ id, sampleRate, channels }) => {
        const { loadSamples } = await import("/static/js/compare/sound/take_audio.js");
        const loaded = await loadSamples(id, { sampleRate, channels });
        return loaded.channels.map((samples) => Array.from(samples));
    }
    """
    given = {"id": takes[0], "sampleRate": 32_000, "channels": 2}
    loaded = np.array(await watched.page.evaluate(load, given), dtype=np.float32)
    assert not cuts
    samples = await studio.samples(takes[0], AUDIO_LEVEL_FINAL)
    np.testing.assert_array_equal(loaded.T.ravel(), np.frombuffer(samples, dtype="<f4"))
    await watched.page.unroute_all()
    given = {"id": takes[2], "sampleRate": 32_000, "channels": 2}
    converted = np.array(await watched.page.evaluate(load, given))
    assert converted.shape == (2, 4 * 32_000)
    np.testing.assert_array_equal(converted[0], converted[1])


async def test_takes_are_matched_to_the_quietest_and_pictures_are_drawn(
    open_studio: OpenPage, takes: list[str]
) -> None:
    page = (await open_studio(viewport={"width": 1400, "height": 1200})).page
    await compare(page, takes)
    compared = page.locator("#compare")
    await expect(compared.get_by_role("radio")).to_have_count(3)
    # A mono take comes from two loudspeakers, so that it is 3 dB louder than its figure.
    await expect(compared.get_by_role("radio").nth(2)).to_contain_text(re.compile(r"heard at .(2\.9|3\.[01]) dB"))
    await expect(compared.get_by_role("slider", name="Position")).to_have_attribute("aria-valuemax", "6.0")
    await expect(compared.get_by_role("img")).to_have_count(5)
    row = compared.get_by_role("row").filter(has=page.get_by_role("rowheader", name="A"))
    await expect(row.get_by_role("cell").first).to_contain_text(re.compile(r".\d+\.\d"))
    await page.evaluate(DRAWN)
    axis = await page.locator(".compare-axis").bounding_box()
    assert axis is not None
    await page.mouse.move(axis["x"] + axis["width"] / 2, axis["y"] + 20)
    await expect(compared.get_by_role("caption")).to_contain_text("Under the pointer, 0:03")
    await expect(row.get_by_role("cell").last).to_contain_text(re.compile(r"Hz: .?\d+ dB"))


async def test_keys_switch_loop_and_rank(open_studio: OpenPage, takes: list[str]) -> None:
    page = (await open_studio()).page
    await compare(page, takes)
    radios = page.get_by_role("radiogroup", name="Take that is heard").get_by_role("radio")
    for key, heard in (("2", 1), ("3", 2), ("ArrowRight", 0), ("ArrowLeft", 2), ("1", 0)):
        await page.keyboard.press(key)
        await expect(radios.nth(heard)).to_be_checked()
    await page.keyboard.press("Space")
    play = page.get_by_role("button", name="Pause", exact=True)
    await play.wait_for()
    await page.keyboard.press("l")
    await expect(page.get_by_role("button", name="Loop", exact=True)).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Space")
    await page.get_by_role("button", name="Play", exact=True).wait_for()
    slider = page.get_by_role("slider", name="Position")
    await page.keyboard.press("Home")
    await expect(slider).to_have_attribute("aria-valuenow", "0.0")
    await page.keyboard.press(".")
    await expect(slider).to_have_attribute("aria-valuenow", "5.0")
    await slider.press("ArrowLeft")
    await expect(slider).to_have_attribute("aria-valuenow", "4.0")
    ranked = page.get_by_role("list", name="Ranking, best first").get_by_role("listitem")
    await page.keyboard.press("Shift+ArrowDown")
    await expect(ranked.first).to_contain_text("unmistakable prompt 1")
    move = page.get_by_role("button", name="Move C up")
    await move.press("Enter")
    await expect(ranked.nth(1)).to_contain_text("unmistakable prompt 2")
    await expect(move).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#compare")).to_be_hidden()


async def test_ranking_is_dragged(open_studio: OpenPage, takes: list[str]) -> None:
    page = (await open_studio(viewport={"width": 1400, "height": 1200})).page
    await compare(page, takes)
    ranked = page.get_by_role("list", name="Ranking, best first").get_by_role("listitem")
    await ranked.last.scroll_into_view_if_needed()
    last, first = await ranked.last.bounding_box(), await ranked.first.bounding_box()
    assert last is not None
    assert first is not None
    await page.mouse.move(last["x"] + 20, last["y"] + 20)
    await page.mouse.down()
    await page.mouse.move(first["x"] + 20, first["y"] + 4, steps=8)
    await page.mouse.up()
    await expect(ranked.first).to_contain_text("unmistakable prompt 2")
    await expect(ranked.last).to_contain_text("unmistakable prompt 1")


async def test_blind_ranking_is_saved_and_then_revealed(
    open_studio: OpenPage, studio: StudioProcesses, takes: list[str]
) -> None:
    page = (await open_studio()).page
    await compare(page, takes)
    before = await saved_rankings(studio)
    compared = page.locator("#compare")
    await compared.get_by_label("Blind").check()
    await expect(compared.get_by_role("radio").first).to_contain_text("Take A")
    for hint in ("unmistakable", "seed", "sketch", "LUFS", "dB", *takes):
        assert hint not in await compared.inner_text()
    html = await compared.inner_html()
    assert not [hint for hint in ("unmistakable", "sketch", "seed 4", *takes) if hint in html]
    await expect(compared.get_by_role("img")).to_have_count(0)
    await page.keyboard.press("1")
    await page.keyboard.press("Shift+ArrowDown")
    await compared.get_by_role("button", name="Save and reveal").click()
    await expect(compared.get_by_text("Saved. B is best.")).to_be_visible()
    revealed = await compared.get_by_role("radio").all_inner_texts()
    saved = await saved_rankings(studio)
    assert len(saved) == len(before) + 1
    assert saved[0].blind
    shown = [next(number for number in range(3) if f"prompt {number}" in text) for text in revealed]
    assert list(saved[0].generation_ids) == [takes[shown[1]], takes[shown[0]], takes[shown[2]]]

    # What is ranked after it was revealed is not blind, and another ranking.
    await page.keyboard.press("Shift+ArrowUp")
    await compared.get_by_role("button", name="Save the ranking").click()
    await expect(compared.get_by_text("Saved. A is best.")).to_be_visible()
    saved = await saved_rankings(studio)
    assert (len(saved), saved[0].blind) == (len(before) + 2, False)
    assert list(saved[0].generation_ids) == [takes[index] for index in shown]

    await compared.get_by_text("Earlier results").click()
    await expect(compared.get_by_text(f"{len(saved)} rankings")).to_be_visible()
    best = compared.get_by_role("table").filter(has_text="By seed").get_by_role("row").nth(1)
    await expect(best).to_contain_text(f"seed {40 + shown[0]}")


async def test_deleted_take_leaves_the_comparison(open_studio: OpenPage, studio: StudioProcesses) -> None:
    page = (await open_studio()).page
    ids = [await studio.generate(f"brief {number}", 0.5) for number in range(3)]
    await compare(page, ids)
    remove = page.get_by_role("button", name="Take B out of the comparison")
    await remove.click()
    await expect(page.get_by_role("radio")).to_have_count(2)
    await page.locator(READY).wait_for()
    await expect(page.get_by_role("button", name="Compare 2 takes")).to_be_visible()
    await page.evaluate("async (id) => (await import('/static/js/state.js')).emit('deleted', { id })", ids[0])
    await expect(page.locator("#compare")).to_be_hidden()
