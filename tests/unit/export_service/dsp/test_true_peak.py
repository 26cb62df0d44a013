"""The true-peak meter against the test cases of EBU Tech 3341 and against soxr."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.measurement import SignalMeter
from export_service.dsp.true_peak import oversampling_factor
from tests.support import signals
from tests.support.signals import true_peak_by_soxr


def peak(samples, rate, sizes=None):
    meter = SignalMeter(rate, samples.shape[1])
    for chunk in signals.in_chunks(samples, sizes) if sizes else [samples]:
        meter.feed(chunk)
    return meter.finish().true_peak_dbtp


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000])
@pytest.mark.parametrize(
    ("divisor", "phase", "amplitude", "expected"),
    [
        pytest.param(4, 0.0, 0.50, -6.0, id="case 15"),
        pytest.param(4, 45.0, 0.50, -6.0, id="case 16"),
        pytest.param(6, 60.0, 0.50, -6.0, id="case 17"),
        pytest.param(8, 67.5, 0.50, -6.0, id="case 18"),
        pytest.param(4, 45.0, 1.41, 3.0, id="case 19"),
    ],
)
def test_tech_3341_true_peak(rate, divisor, phase, amplitude, expected):
    time = np.arange(rate)
    ramp = np.minimum(1.0, np.minimum(time, time[::-1]) / (0.010 * rate))  # 10 ms fades
    wave = amplitude * ramp * np.sin(2 * np.pi * time / divisor + np.radians(phase))
    figure = peak(np.repeat(wave[:, None], 2, axis=1).astype(np.float32), rate)
    assert expected - 0.4 <= figure <= expected + 0.2


@pytest.mark.parametrize("rate", [8_000, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["music", "spiky", "noise"])
def test_agrees_with_soxr_within_a_fifth_of_a_db(kind, rate, channels):
    samples = getattr(signals, kind)(rate, 2, channels)
    assert peak(samples, rate) == pytest.approx(true_peak_by_soxr(samples, rate), abs=0.2)


@pytest.mark.parametrize("frequency", [0.05, 0.17, 0.25, 0.31, 0.40, 0.43])
def test_tone_of_any_phase_reads_its_amplitude(frequency):
    for phase in np.linspace(0, np.pi, 7):
        # Both ends faded, as an abrupt end rings above the tone.
        wave = np.sin(2 * np.pi * frequency * np.arange(4_000) + phase) * np.hanning(4_000)
        assert -0.2 <= peak(wave[:, None].astype(np.float32), 32_000) <= 0.11


@pytest.mark.parametrize("sizes", [[1, 5, 23], [24], [25, 768], [4_096], [50_000]])
def test_true_peak_does_not_depend_on_chunk_sizes(sizes):
    samples = signals.music(32_000, 2)
    assert peak(samples, 32_000, sizes) == pytest.approx(peak(samples, 32_000), abs=1e-4)


def test_skipping_quiet_rows_does_not_change_the_peak():
    samples = signals.music(32_000, 4)
    of_each_part = [peak(samples[start : start + 400], 32_000) for start in range(0, len(samples), 400)]
    # A part's own edges ring, so it can read high, never low.
    assert peak(samples, 32_000) <= max(of_each_part) + 1e-4


@pytest.mark.parametrize("hz", [40, 330, 2_600, 9_000])
def test_skipping_rows_of_low_curvature_does_not_change_the_peak(hz, monkeypatch):
    tone = np.sin(2 * np.pi * hz * np.arange(3 * 32_000) / 32_000)[:, None]
    samples = (0.5 * tone + 0.02 * signals.noise(32_000, 3, 1)).astype(np.float32)
    skipping = peak(samples, 32_000)
    monkeypatch.setattr("export_service.dsp.true_peak.ROWS_PER_BATCH", 10**6)
    assert skipping == pytest.approx(peak(samples, 32_000), abs=1e-5)


def test_sample_peak_is_measured():
    samples = signals.noise(32_000, 1)
    meter = SignalMeter(32_000, 2)
    for chunk in signals.in_chunks(samples, [999]):
        meter.feed(chunk)
    assert meter.finish().sample_peak_dbfs == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=1e-6)


def test_digital_silence_has_no_peak():
    assert peak(np.zeros((1_000, 2), dtype=np.float32), 32_000) is None
    assert peak(np.zeros((0, 2), dtype=np.float32), 32_000) is None


@pytest.mark.parametrize("scale", [1e-30, 1e37])
def test_absurd_levels_do_not_overflow(scale):
    samples = signals.music(32_000, 0.2)
    moved = peak(samples * np.float32(scale), 32_000) - peak(samples, 32_000)
    assert moved == pytest.approx(20 * np.log10(scale), abs=1e-3)


@pytest.mark.parametrize(
    ("rate", "factor"),
    [(8_000, 32), (16_000, 16), (22_050, 16), (32_000, 8), (44_100, 8), (48_000, 8), (96_000, 4), (192_000, 4)],
)
def test_oversampling_reaches_192_khz(rate, factor):
    assert oversampling_factor(rate) == factor
    assert rate * factor >= 192_000


def test_peak_after_the_last_sample_counts():
    # Two equal samples at the very end: the waveform between and after them is higher than both.
    samples = np.zeros((240, 1), dtype=np.float32)
    samples[-2:] = 0.5
    assert peak(samples, 32_000) > 20 * np.log10(0.6)
