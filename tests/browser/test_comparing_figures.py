"""What the page itself computes to compare takes: spectrograms, level matching, shuffling and sums of rankings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page

from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def call(page: Page, module: str, body: str, *values: Any) -> Any:
    """Returns what an expression of `m`, a module of the page, and of `v`, the values, gives."""
    function = f"async (v) => {{ const m = await import('/static/js/{module}.js'); return {body}; }}"
    return await page.evaluate(function, list(values))


async def test_spectrum_is_that_of_numpy(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    size = 256
    samples = np.random.default_rng(1).uniform(-1, 1, 3 * size).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    for start in (0, 100, -50, 700):
        cut = np.pad(samples, size)[start + size : start + 2 * size]
        expected = np.abs(np.fft.rfft(cut * window)) ** 2 * 16 / size**2
        body = "(() => { const s = new Float64Array(v[1] / 2 + 1);"
        body += " new m.PowerSpectrum(v[1]).add(Float32Array.from(v[0]), v[2], s); return [...s]; })()"
        powers = await call(page, "drawing/fft", body, samples.tolist(), size, start)
        np.testing.assert_allclose(powers, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("rate", "hertz", "amplitude"), [(32_000, 440.0, 0.5), (96_000, 8000.0, 0.01), (8_000, 100, 1)]
)
async def test_spectrogram_has_a_sine_where_it_is(
    open_studio: OpenPage, rate: int, hertz: float, amplitude: float
) -> None:
    page = (await open_studio()).page
    scale = {"columns": 20, "rows": 160, "minHz": 40, "maxHz": 20_000}
    sine = "Float32Array.from({ length: 2 * v[0] }, (_, n) => v[2] * Math.sin((2 * Math.PI * v[1] * n) / v[0]))"
    body = f"[...m.computeLevels({sine}, v[0], v[3])]"
    given = rate, hertz, amplitude, scale
    levels = np.reshape(await call(page, "drawing/spectrum_levels", body, *given), (20, 160))
    loudest = int(levels[10].argmax())
    found = await call(page, "drawing/spectrum_levels", "m.frequencyOfRow(v[0], v[1])", loudest, scale)
    level = await call(page, "drawing/spectrum_levels", "m.levelOfByte(v[0])", int(levels[10, loudest]))
    assert abs(np.log2(found / hertz)) < 0.06
    assert level == pytest.approx(20 * np.log10(amplitude), abs=1.5)
    rows = np.arange(160)
    frequencies = 20_000 * (40 / 20_000) ** ((rows + 0.5) / 160)
    assert not levels[:, frequencies > rate / 2 * 1.05].any()
    assert levels[10, (frequencies > 4 * hertz) & (frequencies < rate / 2)].max(initial=0) < 20


async def test_levels_are_matched_without_turning_anything_up(open_studio: OpenPage) -> None:
    page = (await open_studio()).page

    async def gains(*takes: tuple[float | None, int], mix: int) -> list[float]:
        given = [{"lufs": lufs, "channels": channels} for lufs, channels in takes]
        found: list[float] = await call(page, "compare/sound/levels", "m.matchingGains(v[0], v[1])", given, mix)
        return found

    assert await gains((-14.0, 2), (-20.5, 2), (-16.0, 2), mix=2) == pytest.approx([-6.5, 0, -4.5])
    assert await gains((-14.0, 1), (-16.0, 1), mix=1) == pytest.approx([-2, 0])
    assert await gains((-16.0, 1), (-16.0, 2), mix=2) == pytest.approx([-3.0103, 0], abs=1e-3)
    assert await gains((None, 2), (-16.0, 2), (-10.0, 2), mix=2) == pytest.approx([0, 0, -6])
    assert await gains((None, 2), (None, 2), mix=2) == [0, 0]


async def test_each_order_is_as_likely_and_request_ids_are_uuids(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    body = "Array.from({ length: 2400 }, () => m.shuffled(['x', 'y', 'z', 'w']).join(''))"
    orders = Counter(await call(page, "compare/comparison", body))
    assert len(orders) == 24
    assert 50 < min(orders.values()) <= max(orders.values()) < 170
    ids = await call(page, "compare/comparison", "Array.from({ length: 50 }, m.newUuid)")
    assert len(set(ids)) == 50
    assert all(len(one) == 36 and one[14] == "4" and one[19] in "89ab" for one in ids)


async def test_sums_of_rankings(open_studio: OpenPage) -> None:
    page = (await open_studio()).page
    rankings = [["b1", "a1", "a2"], ["a1", "b1"], ["a1", "a2"], ["a1", "x1"]]
    given = [{"generationIds": ids} for ids in rankings]
    body = "m.summarize(v[0], (id) => (id[0] === 'x' ? null : id[0]))"
    best, other = await call(page, "compare/ranking/result_summary", body, given)
    # Of one kind alone, or with a take of which nothing is known, a ranking says nothing.
    assert (best["key"], best["wins"], best["compared"], best["preferred"], best["pairs"]) == ("b", 1, 2, 2, 3)
    assert (other["key"], other["wins"], other["compared"], other["preferred"], other["pairs"]) == ("a", 1, 2, 1, 3)
    assert best["expected"] + other["expected"] == pytest.approx(2)
