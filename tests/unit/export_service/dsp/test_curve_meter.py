"""Loudness curves, compared with the meter of whole signals and with libebur128."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.curve_meter import CurveMeter, LoudnessCurve
from export_service.dsp.measurement import LoudnessMeasurement, SignalMeter, to_decibels
from tests.support import signals


def curve_of(samples: np.ndarray, rate: int, points: int = 10_000, piece: int = 5000) -> LoudnessCurve:
    meter = CurveMeter(rate, samples.shape[1])
    for first in range(0, len(samples), piece):
        meter.feed(samples[first : first + piece])
    return meter.curve(meter.finish(), points)


def measured(samples: np.ndarray, rate: int) -> tuple[LoudnessMeasurement, SignalMeter]:
    meter = SignalMeter(rate, samples.shape[1])
    meter.feed(samples)
    return meter.finish(), meter


@pytest.mark.parametrize(
    ("rate", "seconds", "channels"),
    [(32_000, 4.0, 2), (44_100, 5.03, 2), (48_000, 4.95, 1), (8_000, 3.0001, 1), (44_117, 3.5, 2), (192_000, 3.2, 2)],
)
@pytest.mark.parametrize("build", [signals.spiky, signals.noise])
def test_highest_values_are_those_of_the_whole_signal(build, rate, seconds, channels):
    samples = build(rate, seconds, channels)
    whole, meter = measured(samples, rate)
    curve = curve_of(samples, rate)
    assert curve.seconds_per_point == 0.1
    assert (
        len(curve.true_peak) == len(curve.short_term_lufs) == len(curve.momentary_lufs) == -(-len(samples) * 10 // rate)
    )
    assert to_decibels(curve.true_peak.max()) == pytest.approx(whole.true_peak_dbtp, abs=1e-5)
    assert curve.short_term_lufs.max() == pytest.approx(whole.loudness.max_short_term_lufs, abs=1e-9)
    assert curve.momentary_lufs.max() == pytest.approx(whole.loudness.max_momentary_lufs, abs=1e-9)
    # The gating blocks are the windows that lie within the signal, of which the first is centred on 200 ms.
    blocks = meter.loudness.momentary()
    inside = curve.momentary_lufs[2 : 2 + len(blocks)]
    np.testing.assert_allclose(inside, blocks[: len(inside)], atol=1e-9)
    assert len(blocks) - len(inside) <= 1
    windows = meter.loudness.short_term()
    np.testing.assert_allclose(curve.short_term_lufs[15 : 15 + len(windows)], windows, atol=1e-9)


def test_integrated_loudness_follows_from_the_momentary_curve():
    samples = signals.music(32_000, 20.05)
    samples[200_000:260_000] *= 0.02  # Below the relative gate.
    whole, _ = measured(samples, 32_000)
    blocks = curve_of(samples, 32_000).momentary_lufs[2:-2]
    powers = 10 ** (blocks[blocks > -70] / 10)
    gate = 10 * np.log10(powers.mean()) - 10
    gated = 10 * np.log10(powers[10 * np.log10(powers) > gate].mean())
    assert gated == pytest.approx(whole.loudness.integrated_lufs, abs=1e-9)
    assert gated == pytest.approx(signals.measured_by_libebur128(samples, 32_000).integrated_lufs, abs=0.02)


@pytest.mark.parametrize("rate", [32_000, 44_100, 192_000])
def test_each_peak_is_that_of_its_own_100_ms(rate):
    """Each 100 ms alone, faded so that none reaches into its neighbours."""
    hop = rate // 10
    fade = np.minimum(1, np.minimum(np.arange(hop), np.arange(hop)[::-1]) / (rate / 100))[:, None] ** 2
    levels = np.random.default_rng(1).uniform(0.001, 1.0, 14)
    levels[3] = 0.0
    samples = np.concatenate([signals.noise(rate, 0.1, 2, seed) * fade * levels[seed] for seed in range(14)])
    samples = samples.astype(np.float32)
    curve = curve_of(samples, rate)
    for index, peak in enumerate(curve.true_peak):
        alone = measured(samples[index * hop : (index + 1) * hop], rate)[0].true_peak_dbtp
        assert peak == pytest.approx(0.0 if alone is None else 10 ** (alone / 20), rel=1e-5, abs=3e-4)


def test_curves_do_not_depend_on_pieces_and_are_reduced_to_their_maximum():
    samples = signals.spiky(44_100, 7.77)
    fine = curve_of(samples, 44_100)
    for piece in (1, 33_333) if len(samples) < 50_000 else (777, 33_333, len(samples)):
        other = curve_of(samples, 44_100, piece=piece)
        np.testing.assert_array_equal(fine.momentary_lufs, other.momentary_lufs)
        np.testing.assert_array_equal(fine.true_peak, other.true_peak)
    coarse = curve_of(samples, 44_100, points=10)
    assert coarse.seconds_per_point == pytest.approx(0.8)
    for name in ("short_term_lufs", "momentary_lufs", "true_peak"):
        values = getattr(fine, name)
        expected = [values[first : first + 8].max() for first in range(0, len(values), 8)]
        np.testing.assert_array_equal(getattr(coarse, name), expected)
    assert len(curve_of(samples, 44_100, points=1).true_peak) == 1


@pytest.mark.parametrize("frames", [1, 31, 3199, 3200, 3201])
def test_short_signals(frames):
    samples = np.full((frames, 1), 0.5, dtype=np.float32)
    curve = curve_of(samples, 32_000)
    assert len(curve.true_peak) == (1 if frames <= 3200 else 2)
    assert curve.true_peak.max() >= 0.45
    assert np.isfinite(curve.momentary_lufs[0]) == (frames >= 3200)


def test_silence():
    curve = curve_of(np.zeros((40_000, 2), dtype=np.float32), 32_000)
    assert not curve.true_peak.any()
    assert np.isneginf(curve.short_term_lufs).all()
