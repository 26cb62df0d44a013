"""Takes compared in the page, as they sound: in step to the sample, without clicks, and as the server decodes them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, Route

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

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


FADE = 256
"""8 ms at 32 kHz."""


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
    open_studio: OpenPage, studio: StudioProcesses
) -> None:
    stereo = await studio.generate("a calm piano", 6.0)
    mono = await studio.generate("a calm piano", 4.0, output={"channels": 1, "sample_rate_hz": 48_000})
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
    given = {"id": stereo, "sampleRate": 32_000, "channels": 2}
    loaded = np.array(await watched.page.evaluate(load, given), dtype=np.float32)
    assert not cuts
    samples = await studio.samples(stereo, AUDIO_LEVEL_FINAL)
    np.testing.assert_array_equal(loaded.T.ravel(), np.frombuffer(samples, dtype="<f4"))
    await watched.page.unroute_all()
    given = {"id": mono, "sampleRate": 32_000, "channels": 2}
    converted = np.array(await watched.page.evaluate(load, given))
    assert converted.shape == (2, 4 * 32_000)
    np.testing.assert_array_equal(converted[0], converted[1])
