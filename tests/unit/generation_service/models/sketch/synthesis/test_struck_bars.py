"""Vibraphones, marimbas and bells."""

import numpy as np
import pytest

from generation_service.models.sketch.synthesis.struck_bars import BARS, render_bars
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ


@pytest.mark.parametrize("name", BARS)
def test_modes_are_where_they_belong(name: str) -> None:
    sound = render_bars(name, (60,), RATE_HZ).sum(axis=0)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18))
    hz = np.fft.rfftfreq(1 << 18, 1.0 / RATE_HZ)
    for ratio, level, _ in BARS[name].modes:
        expected = 261.63 * ratio
        near = (hz > 0.94 * expected) & (hz < 1.06 * expected)
        if level >= 0.25:
            assert hz[near][np.argmax(spectrum[near])] == pytest.approx(expected, rel=0.01)


def test_nothing_is_above_the_band() -> None:
    sound = render_bars("bells", (110,), RATE_HZ).sum(axis=0)
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1.0 / RATE_HZ)
    assert power[hz > 14_600].sum() < 1e-4 * power.sum()
