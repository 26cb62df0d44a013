"""Saturation and the low-pass of tape."""

import numpy as np
import pytest

from generation_service.models.sketch.synthesis.character import LowPass, character_of, saturate
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ


def test_saturation_bends_only_what_is_loud() -> None:
    ramp = np.linspace(-2.0, 2.0, 4001, dtype=np.float32)[None, :]
    for drive in (0.1, 0.5, 1.0):
        bent = ramp.copy()
        saturate(bent, drive)
        assert np.all(np.diff(bent) > -1e-6)
        assert np.max(np.abs(bent)) < 2.0
        quiet = np.abs(ramp) < 0.05
        assert np.allclose(bent[quiet], ramp[quiet], rtol=0.02)
    untouched = ramp.copy()
    saturate(untouched, character_of("classical").drum_drive)
    assert np.array_equal(untouched, ramp)


def test_low_pass_does_not_depend_on_blocks_and_takes_the_highs() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 32_768)).astype(np.float32)
    whole = LowPass(7000.0).process(noise)
    blocks = LowPass(7000.0)
    assert np.allclose(np.concatenate([blocks.process(part) for part in np.split(noise, 4, axis=1)], axis=1), whole)
    power = np.abs(np.fft.rfft(whole[0])) ** 2
    hz = np.fft.rfftfreq(32_768, 1.0 / RATE_HZ)
    assert power[hz < 5500].mean() > 300 * power[hz > 9000].mean()
    assert power[hz < 5000].mean() == pytest.approx(32_768, rel=0.1)
