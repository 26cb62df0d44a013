"""What the audio thread plays: every sample that it is sent, once, without a gap; and what it waits for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.async_api import Page

from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE, QUANTUM = 32_000, 128
FADE = 240
RENDER = """
async ({ rate, frames, channels, script }) => {
    const context = new OfflineAudioContext({ numberOfChannels: channels, length: frames, sampleRate: rate });
    await context.audioWorklet.addModule("/static/js/player/audio/worklet.js");
    const options = { numberOfInputs: 0, outputChannelCount: [channels] };
    const node = new AudioWorkletNode(context, "take-player", options);
    node.connect(context.destination);
    const reports = [];
    let heard = () => {};
    node.port.onmessage = ({ data }) => (data.type === "answer" ? heard() : reports.push(data));
    const ramp = (frame, count) =>
        Float32Array.from({ length: count * channels }, (_, index) => (frame * channels + index + 1) / 2 ** 22);
    const send = async (messages) => {
        for (const { frame, count, ...message } of messages) {
            const samples = count && { samples: ramp(frame, count), frame, channels };
            node.port.postMessage({ ...message, ...samples });
        }
        // "ask" is answered at once, so that all before it has been read.
        const answered = new Promise((resolve) => (heard = resolve));
        node.port.postMessage({ type: "ask" });
        await answered;
    };
    await send(script[0].messages);
    for (const { at, messages } of script.slice(1)) {
        context.suspend(at / rate).then(async () => { await send(messages); context.resume(); });
    }
    const rendered = await context.startRendering();
    await send([]); // All that was reported before has arrived, too.
    const output = Array.from({ length: channels }, (_, index) => Array.from(rendered.getChannelData(index)));
    return { output, reports };
}
"""
"""Renders ramps, in which each sample says which one it is."""


async def render(
    page: Page, frames: int, *script: tuple[int, list[dict[str, Any]]], channels: int = 2
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the output as numbers of samples [frames, channels], 0 for silence, and what the thread has reported."""
    steps = [{"at": at, "messages": messages} for at, messages in script]
    rendered = await page.evaluate(RENDER, {"rate": RATE, "frames": frames, "channels": channels, "script": steps})
    return np.array(rendered["output"]).T * 2**22, rendered["reports"]


def push(frame: int, count: int, serial: int = 1) -> dict[str, Any]:
    return {"type": "push", "serial": serial, "frame": frame, "count": count}


RESET, PLAY, PAUSE, FINISH = (
    {"type": "reset", "serial": 1},
    {"type": "play"},
    {"type": "pause"},
    {"type": "finish", "serial": 1},
)


def numbers(start: int, frames: int, channels: int = 2) -> np.ndarray:
    return np.arange(start * channels, (start + frames) * channels).reshape(-1, channels) + 1


@pytest.mark.parametrize("channels", [1, 2])
async def test_chunks_of_any_size_join_without_a_gap(open_studio: OpenPage, channels: int) -> None:
    page = (await open_studio()).page
    sizes = [1, 127, 128, 129, 5000, 3, 8192, 420]
    starts = np.cumsum([0, *sizes[:-1]])
    pushes = [push(int(start), size) for start, size in zip(starts, sizes, strict=True)]
    total = sum(sizes)
    output, reports = await render(page, total + 1000, (0, [RESET, *pushes, FINISH, PLAY]), channels=channels)
    assert np.array_equal(output[:total], numbers(0, total, channels)), "from the first frame on, bit for bit"
    assert not output[total:].any()
    assert reports[-1]["state"] == "ended"
    assert {report["underruns"] for report in reports} == {0}


async def test_mono_is_heard_on_both_sides(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    mono = await page.evaluate(
        RENDER.replace("ramp(frame, count), frame, channels }", "ramp(frame, count / 2), frame, channels: 1 }"),
        {"rate": RATE, "frames": 1024, "channels": 2, "script": [{"messages": [RESET, push(0, 1024), FINISH, PLAY]}]},
    )
    left, right = np.array(mono["output"])
    assert left.any()
    assert np.array_equal(left, right)


async def test_music_that_arrives_late_goes_on_with_its_next_sample(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    late = 16 * QUANTUM
    script = (0, [RESET, push(0, 1000), PLAY]), (late, [push(1000, 4000), FINISH])
    output, reports = await render(page, 64 * QUANTUM, *script)
    assert np.array_equal(output[: 1000 - FADE], numbers(0, 1000 - FADE))
    assert not output[1000:late].any()
    heard = output[late + FADE : late + 4000]
    assert np.array_equal(heard, numbers(1000 + FADE, 4000 - FADE))
    steps = np.abs(np.diff(output[: late + 4000, 0])).max()
    assert steps < 40, "it fades where it stops and starts"
    assert max(report["underruns"] for report in reports) == 1
    assert "buffering" in [report["state"] for report in reports]


async def test_pause_keeps_the_place(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    pause, play = 8 * QUANTUM, 32 * QUANTUM
    script = (0, [RESET, push(0, 20_000), PLAY]), (pause, [PAUSE]), (play, [PLAY])
    output, reports = await render(page, 96 * QUANTUM, *script)
    silence = np.flatnonzero(~output[:, 0].astype(bool))
    assert pause < silence[0] < pause + 2 * FADE
    assert silence[-1] < play + QUANTUM
    place = next(report["frame"] for report in reports if report["state"] == "paused" and report["frame"] > 0)
    resumed = silence[-1] + 1
    after = output[resumed + FADE : resumed + FADE + 1000]
    assert np.array_equal(after, numbers(place + FADE, 1000)), "the sample after the one at which it stopped"


async def test_seek_drops_what_was_queued(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    seek = 8 * QUANTUM
    again = [{"type": "reset", "serial": 2}, push(1024, 100, serial=1), push(50_000, 4000, serial=2)]
    output, reports = await render(page, 40 * QUANTUM, (0, [RESET, push(0, 20_000), PLAY]), (seek, again))
    first = seek + FADE
    assert np.array_equal(output[first : first + 1000], numbers(50_000 + FADE, 1000))
    assert reports[-1]["serial"] == 2


async def test_nothing_sounds_before_enough_has_arrived(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    more = 10 * QUANTUM
    wait = {"type": "prebuffer", "frames": 4000}
    script = (0, [RESET, wait, push(0, 3999), PLAY]), (more, [push(3999, 1)])
    output, _ = await render(page, 20 * QUANTUM, *script)
    assert not output[:more].any()
    assert np.array_equal(output[more:], numbers(0, 10 * QUANTUM))


@pytest.mark.parametrize(
    ("left", "speed", "underruns", "seconds"),
    [
        (60, None, 0, 0.3),  # Nothing is known to be slow.
        (60, 20, 0, 0.3),
        (60, None, 2, 1.2),  # It had to stop twice.
        (60, None, 9, 5),
        (20, 0.5, 0, 10),  # Half of what is left has to be there.
        (600, 0.5, 0, 20),  # But nobody waits for minutes.
        (0.1, 0.5, 5, 0.3),
    ],
)
async def test_wait_before_playing(
    open_studio: OpenPage, left: float, speed: float | None, underruns: int, seconds: float
) -> None:
    page = (await open_studio()).page
    script = """async ({ speed, ...about }) => {
        const { bufferSeconds } = await import("/static/js/player/audio/prebuffer.js");
        return bufferSeconds({ speed: speed ?? Infinity, ...about });
    }"""
    about = {"leftSeconds": left, "speed": speed, "underruns": underruns}
    assert await page.evaluate(script, about) == pytest.approx(seconds)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_store_returns_what_was_written(open_studio: OpenPage, data: st.DataObject) -> None:
    """Blocks are filled from their beginning, at any place and in pieces of any size."""
    pieces = []
    filled: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 8))):
        block = data.draw(st.integers(0, 3))
        start, count = block * 32_768 + filled.get(block, 0), data.draw(st.integers(1, 70_000))
        pieces.append([start, count])
        for frame in range(start // 32_768, (start + count - 1) // 32_768 + 1):
            end = min(start + count - frame * 32_768, 32_768)
            filled[frame] = max(filled.get(frame, 0), end)
    asked = data.draw(st.integers(0, 200_000))
    page = STORE_PAGES.get("page") or (await open_studio()).page
    STORE_PAGES["page"] = page
    first, frames, missing = await page.evaluate(STORE, {"pieces": pieces, "asked": asked})
    block, offset = divmod(asked, 32_768)
    end = asked
    if filled.get(block, 0) > offset:
        while filled.get(block, 0) == 32_768:
            block += 1
        end = block * 32_768 + filled.get(block, 0)
    assert frames == end - asked
    assert first == (asked if frames else None)
    block = asked // 32_768
    while filled.get(block, 0) == 32_768:
        block += 1
    assert missing == block * 32_768 + filled.get(block, 0)


STORE_PAGES: dict[str, Page] = {}
STORE = """
async ({ pieces, asked }) => {
    const { SampleStore } = await import("/static/js/player/audio/sample_store.js");
    const store = new SampleStore({ sampleRate: 32000, channels: 1, level: "LIVE", attempt: 1, expectedFrames: 0 });
    const ramp = (start, count) => Float32Array.from({ length: count }, (_, index) => start + index);
    for (const [start, count] of pieces) store.write(start, ramp(start, count));
    const samples = store.read(asked, 400000);
    const wrong = samples.findIndex((sample, index) => sample !== asked + index);
    if (wrong >= 0) throw new Error(`sample ${asked + wrong} is ${samples[wrong]}`);
    return [samples[0] ?? null, samples.length, store.missingFrom(asked)];
}
"""
