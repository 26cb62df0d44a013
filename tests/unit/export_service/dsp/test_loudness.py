"""The loudness meter against the test cases of EBU Tech 3341/3342 and against libebur128."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest

from export_service.dsp.measurement import SignalMeter
from tests.support import signals
from tests.support.signals import measured_by_libebur128

RATES = [32_000, 44_100, 48_000]
QUICK_RATES = [*(pytest.param(rate, marks=pytest.mark.slow) for rate in RATES[:2]), RATES[2]]


def meter_of(samples, rate, sizes=None):
    meter = SignalMeter(rate, samples.shape[1])
    for chunk in signals.in_chunks(samples, sizes) if sizes else [samples]:
        meter.feed(chunk)
    meter.finish()
    return meter.loudness


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("level", [-23.0, -33.0])
def test_tech_3341_cases_1_and_2(rate, level):
    meter = meter_of(signals.tones(rate, [(20, level)]), rate)
    figures = meter.measure()
    assert figures.integrated_lufs == pytest.approx(level, abs=0.1)
    assert figures.max_momentary_lufs == pytest.approx(level, abs=0.1)
    assert figures.max_short_term_lufs == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize("rate", QUICK_RATES)
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([(10, -36), (60, -23), (10, -36)], id="case 3"),
        pytest.param([(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)], id="case 4"),
        pytest.param([(20, -26), (20.1, -20), (20, -26)], id="case 5"),
    ],
)
def test_tech_3341_gating(rate, parts):
    meter = meter_of(signals.tones(rate, parts), rate)
    assert meter.measure().integrated_lufs == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate", RATES)
def test_tech_3341_case_9_short_term_is_constant(rate):
    meter = meter_of(signals.tones(rate, [(1.34, -20), (1.66, -30)] * 5), rate)
    assert len(meter.short_term()) == 121
    np.testing.assert_allclose(meter.short_term(), -23, atol=0.1)


@pytest.mark.parametrize("rate", RATES)
def test_tech_3341_case_12_momentary_is_constant(rate):
    meter = meter_of(signals.tones(rate, [(0.18, -20), (0.22, -30)] * 25), rate)
    np.testing.assert_allclose(meter.momentary()[6:], -23, atol=0.1)


@pytest.mark.parametrize("rate", QUICK_RATES)
@pytest.mark.parametrize(
    ("levels", "expected"),
    [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20), ((-50, -35, -20, -35, -50), 15)],
)
def test_tech_3342_range(rate, levels, expected):
    meter = meter_of(signals.tones(rate, [(20, level) for level in levels]), rate)
    assert meter.measure().range_lu == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["music", "spiky", "noise"])
def test_agrees_with_libebur128(kind, rate, channels):
    samples = getattr(signals, kind)(rate, 6, channels)
    expected = measured_by_libebur128(samples, rate)
    figures = meter_of(samples, rate, [rate // 7, 1, rate // 3]).measure()
    assert figures.integrated_lufs == pytest.approx(expected.integrated_lufs, abs=0.01)
    assert figures.range_lu == pytest.approx(expected.range_lu, abs=1)


@pytest.mark.parametrize("rate", [11_025, 11_026, 47_999])
def test_agrees_with_pyloudnorm_if_100_ms_is_not_a_whole_number_of_frames(rate):
    # libebur128 itself rounds its blocks there and reads up to 0.12 LU low.
    samples = signals.music(rate, 12)
    expected = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(samples.astype(np.float64))
    assert meter_of(samples, rate).measure().integrated_lufs == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("sizes", [[1, 3, 700], [3_200], [3_199, 3_201], [8_192], [100_000]])
def test_loudness_does_not_depend_on_chunk_sizes(sizes):
    samples = signals.music(32_000, 5)
    whole = meter_of(samples, 32_000).measure()
    cut = meter_of(samples, 32_000, sizes).measure()
    assert cut.integrated_lufs == pytest.approx(whole.integrated_lufs, abs=1e-9)
    assert cut.max_short_term_lufs == pytest.approx(whole.max_short_term_lufs, abs=1e-9)


def test_mono_is_3_lu_below_the_same_signal_in_stereo():
    mono, stereo = (meter_of(signals.tones(48_000, [(3, -20)], n), 48_000).measure() for n in (1, 2))
    assert stereo.integrated_lufs - mono.integrated_lufs == pytest.approx(3.01, abs=0.01)


@pytest.mark.parametrize(("frames", "known"), [(12_799, False), (12_800, True)])
def test_loudness_requires_400_ms(frames, known):
    figures = meter_of(signals.tones(32_000, [(1, -20)])[:frames], 32_000).measure()
    assert (figures.integrated_lufs is not None) is known
    assert (figures.max_momentary_lufs is not None) is known
    assert figures.max_short_term_lufs is None
    assert figures.range_lu is None


def test_incomplete_last_block_is_ignored():
    quiet = signals.tones(32_000, [(4, -30)])
    with_burst = np.concatenate([quiet, signals.tones(32_000, [(0.0999, -3)])])
    assert meter_of(with_burst, 32_000).measure() == meter_of(quiet, 32_000).measure()


def test_abrupt_end_does_not_count():
    # The filter would ring on, and 3 s at this rate end within a row of 32 frames.
    samples = np.full((3 * 11_025, 1), 0.5, dtype=np.float32)
    assert meter_of(samples, 11_025).momentary()[-1] < -100


def test_digital_silence_has_no_loudness():
    figures = meter_of(np.zeros((200_000, 2), dtype=np.float32), 32_000).measure()
    assert figures.integrated_lufs is None
    assert figures.max_momentary_lufs is None
    assert figures.range_lu is None


def test_signal_below_the_gate_has_only_momentary_loudness():
    figures = meter_of(signals.tones(32_000, [(5, -75)]), 32_000).measure()
    assert figures.integrated_lufs is None
    assert figures.max_momentary_lufs == pytest.approx(-75, abs=0.1)


def test_integrated_after_reduction_matches_measurement(tmp_path):
    samples = signals.music(32_000, 6)
    meter = SignalMeter(32_000, 2, tmp_path)
    meter.feed(samples)
    meter.finish()
    energies = meter.envelope.energies(0, meter.envelope.rows)
    meter.close()
    gains = np.where(np.arange(len(samples)) < 3 * 32_000, 0.5, 1.0)
    removed = (energies * (1 - gains[::32] ** 2)).reshape(-1, 100).sum(axis=1)
    turned_down = meter_of((samples * gains[:, None] * 10 ** (2 / 20)).astype(np.float32), 32_000).measure()
    expected = pytest.approx(turned_down.integrated_lufs, abs=0.01)
    assert meter.loudness.integrated_after_reduction(removed, 2.0) == expected


def test_feed_without_frames_has_no_loudness():
    assert meter_of(np.empty((0, 2), dtype=np.float32), 32_000).measure().integrated_lufs is None
