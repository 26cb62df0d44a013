"""The gain, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.loudness import Loudness
from export_service.measurement import Measured, Measurement
from export_service.normalization import Aim, NormalizationMode, normalization

AIM = Aim(target_lufs=-16.0, ceiling_dbtp=-1.0)


def measured(integrated, peak, seconds=10.0, momentary=-20.0):
    return Measured(Loudness(integrated, momentary, None, None), peak, seconds)


@pytest.mark.parametrize(("integrated", "peak", "gain"), [(-20.0, -10.0, 4.0), (-10.0, 0.5, -6.0), (-18.0, -3.0, 2.0)])
def test_one_gain_to_the_target(integrated, peak, gain):
    decided = normalization(measured(integrated, peak), AIM)
    assert decided.mode is NormalizationMode.LINEAR
    assert decided.gain_db == gain
    assert (decided.shortfall_lu, decided.reason) == (0.0, "")


def test_held_back_under_the_ceiling_and_says_so():
    decided = normalization(measured(-20.0, -3.0), AIM)
    assert decided.mode is NormalizationMode.LINEAR
    assert decided.gain_db == pytest.approx(2.0, abs=1e-3)
    assert decided.gain_db <= 2.0
    assert decided.shortfall_lu == pytest.approx(2.0, abs=1e-3)
    assert "held back 2.00 LU" in decided.reason
    assert "2.00 dB over the ceiling" in decided.reason


def test_too_short_is_left_alone():
    decided = normalization(measured(None, -3.0, seconds=0.3, momentary=None), AIM)
    assert (decided.mode, decided.gain_db, decided.shortfall_lu) == (NormalizationMode.NONE, 0.0, 0.0)
    assert "0.300 s" in decided.reason


@pytest.mark.parametrize("peak", [None, -75.0])
def test_too_quiet_is_left_alone(peak):
    decided = normalization(measured(None, peak), AIM)
    assert (decided.mode, decided.gain_db) == (NormalizationMode.NONE, 0.0)
    assert "-70 LUFS" in decided.reason


def test_too_short_but_over_full_scale_is_turned_down_rather_than_clipped():
    decided = normalization(measured(None, 3.0, seconds=0.1, momentary=None), AIM)
    assert decided.mode is NormalizationMode.LINEAR
    assert decided.gain_db == pytest.approx(-4.0, abs=1e-3)
    assert "under the ceiling" in decided.reason


@pytest.mark.parametrize("rate", [32_000, 48_000])
@pytest.mark.parametrize("seed", range(4))
def test_a_held_back_file_stays_under_the_ceiling_by_another_meter(rate, seed, signals, libebur128):
    samples = signals.music(rate, 4, seed=seed) * np.float32(0.3)
    samples[rate : rate + 3] = 0.9
    meter = Measurement(rate, 2)
    meter.feed(samples)
    decided = normalization(meter.finish(), AIM)
    assert decided.shortfall_lu > 0
    assert libebur128(samples * np.float32(10 ** (decided.gain_db / 20)), rate).true_peak_dbtp <= -1.0


@pytest.mark.parametrize("sizes", [[1, 999], [8_192], [32_768], [100_000]])
def test_figures_are_the_same_to_the_last_bit_however_the_signal_is_cut(sizes, signals):
    samples = signals.music(32_000, 6)
    whole, cut = Measurement(32_000, 2), Measurement(32_000, 2)
    whole.feed(samples)
    for chunk in signals.in_chunks(samples, sizes):
        cut.feed(chunk)
    assert cut.finish() == whole.finish()
