"""The limiter and the gain solver, verified with independent meters."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.gain_solver import normalize
from export_service.dsp.limiter import MAX_REDUCTION_DB, Limiter, LimiterSettings
from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget, NormalizationMode
from export_service.dsp.segments import SEGMENT_FRAMES
from export_service.dsp.true_peak import Interpolator
from tests.support import signals
from tests.support.signals import measured_by_libebur128, true_peak_by_soxr

TARGET = LoudnessTarget(target_lufs=-16.0, ceiling_dbtp=-1.0)
RATE = 32_000


@pytest.fixture
def normalizer(tmp_path):
    """Normalizes samples; returns the result and the samples with its gain applied."""
    measurements = []

    def run(samples, rate=RATE, target=TARGET, sizes=(50_000,)):
        measurement = SignalMeter(rate, samples.shape[1], tmp_path)
        measurements.append(measurement)
        for block in signals.in_chunks(samples, sizes):
            measurement.feed(block)
        normalized = normalize(measurement, measurement.finish(), lambda: signals.in_chunks(samples, sizes), target)
        gain = np.float32(10 ** (normalized.gain_db / 20))
        return normalized, np.concatenate([block * gain for block in normalized.blocks()])

    yield run
    for measurement in measurements:
        measurement.close()


def measure_gain(limited, samples):
    """Returns the frames that are loud enough to measure a gain, and their gains in dB."""
    loudest = np.abs(samples).argmax(axis=1)[:, None]
    before, after = (np.take_along_axis(signal, loudest, 1)[:, 0].astype(np.float64) for signal in (samples, limited))
    is_audible = np.abs(before) > 1e-3
    return np.flatnonzero(is_audible), 20 * np.log10(after[is_audible] / before[is_audible])


def steepest_db_per_ms(limited, samples, rate):
    """Returns the steepest slope of the gain; a step would appear as a very steep slope between two frames."""
    frames, gains = measure_gain(limited, samples)
    slopes = np.diff(gains) / np.diff(frames) * rate / 1000
    return np.abs(slopes[np.diff(frames) < rate // 1000]).max()


@pytest.mark.parametrize(
    ("plr", "rate"),
    [(8, 32_000), (12, 32_000), (16, 32_000), (17, 44_100), (18, 48_000), (19, 48_000), (20, 32_000)],
)
def test_normalize_meets_target_and_ceiling(plr, rate, normalizer):
    normalized, limited = normalizer(signals.of_plr(plr, rate, 6), rate)
    assert normalized.normalization.mode is (NormalizationMode.LIMITED if plr > 15 else NormalizationMode.LINEAR)
    assert normalized.normalization.shortfall_lu <= 0.1
    figures = measured_by_libebur128(limited, rate)
    assert figures.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert normalized.measurement.loudness.integrated_lufs == pytest.approx(figures.integrated_lufs, abs=0.01)
    assert figures.true_peak_dbtp <= -1.0
    assert true_peak_by_soxr(limited, rate) <= -1.0
    assert np.abs(limited).max() <= 10 ** (-1.0 / 20)


@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_dense_hits_use_the_fast_release(rate, normalizer):
    # Holding each reduction for 3 ms would cost more loudness than 6 dB of limiting can make up for.
    samples = signals.of_plr(20, rate, 6, every=0.5)
    normalized, limited = normalizer(samples, rate)
    assert normalized.normalization.shortfall_lu == 0
    figures = measured_by_libebur128(limited, rate)
    assert figures.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert max(figures.true_peak_dbtp, true_peak_by_soxr(limited, rate)) <= -1.0
    assert steepest_db_per_ms(limited, samples, rate) < 1.5 + 0.01 * rate / 1000


def sub_bass():
    """Notes of 38 Hz with quiet chords: limiting such bass changes its loudness in ways that an estimate misses."""
    time = np.arange(4 * RATE) / RATE
    notes = 0.6 * np.sin(2 * np.pi * 38 * time) * (time % 0.5 < 0.12)
    chords = sum(0.01 * np.sin(2 * np.pi * hz * time) for hz in (110.0, 220.0, 277.2, 329.6))
    return (notes + chords)[:, None].astype(np.float32)


def test_sub_bass_reaches_its_target(normalizer):
    normalized, limited = normalizer(sub_bass(), target=LoudnessTarget(-16.3, -1.0))
    assert normalized.normalization.shortfall_lu == 0
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-16.3, abs=0.05)


def test_unreachable_target_uses_the_gentle_release(normalizer):
    samples = sub_bass()
    normalized, limited = normalizer(samples, target=LoudnessTarget(-15.5, -1.0))
    normalization = normalized.normalization
    assert normalization.largest_reduction_db == pytest.approx(6.0, abs=0.05)
    assert normalization.shortfall_lu > 0.1
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(
        -15.5 - normalization.shortfall_lu, abs=0.05
    )
    frames, gains = measure_gain(limited, samples)
    release_slopes = (np.diff(gains) / np.diff(frames))[np.diff(frames) < RATE // 1000] * RATE / 1000
    assert release_slopes.max() < 0.5, "dB per ms"


def test_gentle_release_preserves_the_shape_of_bass(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE)
    samples = np.repeat(tone[:, None], 2, axis=1).astype(np.float32)
    measurement = SignalMeter(RATE, 2, tmp_path)
    measurement.feed(samples)
    measurement.finish()
    limiter = Limiter(measurement.envelope, lambda: [samples], RATE)
    limited = np.concatenate(list(limiter.blocks(LimiterSettings(gain_db=8.0, ceiling_dbtp=-1.0))))[RATE : 2 * RATE, 0]
    measurement.close()
    spectrum = np.abs(np.fft.rfft(limited))  # A second: the tone lies in bin 50, its overtones in others.
    assert spectrum[np.arange(len(spectrum)) != 50].max() < spectrum[50] * 10 ** (-50 / 20)
    assert np.abs(limited).max() == pytest.approx(10 ** (-1 / 20), rel=0.01)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["music", "spiky"])
def test_normalize_to_loud_target(kind, channels, normalizer):
    normalized, limited = normalizer(getattr(signals, kind)(RATE, 8, channels), target=LoudnessTarget(-12.0, -1.0))
    normalization = normalized.normalization
    assert normalization.mode is NormalizationMode.LIMITED
    assert 0 < normalization.limited_share < 1
    assert 0 < normalization.largest_reduction_db <= MAX_REDUCTION_DB
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(
        -12 - normalization.shortfall_lu, abs=0.05
    )
    assert true_peak_by_soxr(limited, RATE) <= -1.0


def test_normalize_full_band_noise(normalizer):
    normalized, limited = normalizer(signals.noise(RATE, 8), target=LoudnessTarget(-9.0, -1.0))
    assert normalized.normalization.mode is NormalizationMode.LIMITED
    assert measured_by_libebur128(limited, RATE).true_peak_dbtp <= -0.8
    assert true_peak_by_soxr(limited, RATE) <= -0.8


def test_reduction_stops_at_6_db_and_reports_the_shortfall(normalizer):
    normalized, limited = normalizer(signals.of_plr(26, RATE, 6))
    normalization = normalized.normalization
    assert normalization.mode is NormalizationMode.LIMITED
    assert normalization.largest_reduction_db == pytest.approx(6.0, abs=0.01)
    assert normalization.shortfall_lu > 3
    assert f"held back {normalization.shortfall_lu:.2f} LU" in normalization.reason
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(
        -16 - normalization.shortfall_lu, abs=0.05
    )
    assert true_peak_by_soxr(limited, RATE) <= -1.0


def test_limiter_applies_one_gain_to_all_channels(normalizer):
    samples = signals.spiky(RATE, 4)
    samples[:, 1] *= np.float32(0.1)
    _, limited = normalizer(samples, target=LoudnessTarget(-12.0, -1.0))
    loud = np.abs(samples) > 1e-3
    both = loud.all(axis=1)
    gains = limited[both].astype(np.float64) / samples[both]
    np.testing.assert_allclose(gains[:, 0], gains[:, 1], rtol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 32_000, 192_000])
def test_limiter_gain_has_no_steps(rate, normalizer):
    samples = signals.spiky(rate, 4)
    normalized, limited = normalizer(samples, rate, LoudnessTarget(-12.0, -1.0))
    assert normalized.normalization.largest_reduction_db > 3
    assert steepest_db_per_ms(limited, samples, rate) < 1.5 + 0.01 * rate / 1000


def test_limiter_attacks_before_a_peak_and_releases_within_40_ms(normalizer):
    samples = signals.tones(RATE, [(4, -20)])
    samples[2 * RATE] = 0.999
    normalized, limited = normalizer(samples, target=LoudnessTarget(-16.0, -1.0))
    frames, gains = measure_gain(limited, samples)
    turned_down = frames[gains < normalized.normalization.gain_db - 0.01]
    assert normalized.normalization.largest_reduction_db > 2
    assert 2 * RATE - 0.012 * RATE < turned_down[0] < 2 * RATE
    assert 2 * RATE < turned_down[-1] < 2 * RATE + 0.05 * RATE
    share = (turned_down[-1] - turned_down[0]) / len(samples)
    assert normalized.normalization.limited_share == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("where", ["first", "last"])
def test_limiter_handles_peaks_at_both_ends(where, normalizer):
    samples = signals.tones(RATE, [(3, -20)])
    samples[slice(0, 3) if where == "first" else slice(-3, None)] = 0.9
    normalized, limited = normalizer(samples)
    assert normalized.normalization.mode is NormalizationMode.LIMITED
    # Padded with silence, because the waveform rings on.
    assert true_peak_by_soxr(np.pad(limited, ((200, 200), (0, 0))), RATE) <= -1.0


@pytest.mark.parametrize("sizes", [[1_000, 77], [32_768], [100_000]])
def test_normalize_does_not_depend_on_block_sizes(sizes, normalizer):
    samples = signals.spiky(RATE, 5)
    one, other = normalizer(samples), normalizer(samples, sizes=sizes)
    assert one[0].normalization == other[0].normalization
    np.testing.assert_array_equal(one[1], other[1])


def test_normalize_signal_of_whole_segments(normalizer):
    samples = signals.spiky(RATE, 5)[: 4 * SEGMENT_FRAMES]
    normalized, limited = normalizer(samples, target=LoudnessTarget(-12.0, -1.0))
    normalization = normalized.normalization
    assert normalization.mode is NormalizationMode.LIMITED
    assert len(limited) == len(samples)
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(
        -12 - normalization.shortfall_lu, abs=0.05
    )


@pytest.mark.parametrize("seconds", [2.0, 2 * SEGMENT_FRAMES / RATE, (SEGMENT_FRAMES + 128) / RATE, 3.33])
@pytest.mark.parametrize("kind", ["music", "spiky", "noise"])
def test_measures_the_limited_signal_as_if_nothing_was_known_of_it(kind, seconds, normalizer):
    normalized, limited = normalizer(getattr(signals, kind)(RATE, seconds), target=LoudnessTarget(-7.0, -1.0))
    assert normalized.normalization.mode is NormalizationMode.LIMITED
    meter = SignalMeter(RATE, 2)
    meter.feed(limited)
    expected = meter.finish()
    assert normalized.measurement.true_peak_dbtp == pytest.approx(expected.true_peak_dbtp, abs=1e-4)
    assert normalized.measurement.sample_peak_dbfs == expected.sample_peak_dbfs
    assert normalized.measurement.loudness == expected.loudness


@pytest.mark.parametrize("kind", ["music", "spiky", "noise"])
def test_rows_that_cannot_exceed_the_threshold_are_skipped_without_effect(kind, normalizer, monkeypatch):
    samples = getattr(signals, kind)(RATE, 3)
    skipping, limited = normalizer(samples, target=LoudnessTarget(-12.0, -1.0))
    monkeypatch.setattr(Interpolator, "bounds", lambda _, peaks, curvatures: np.full_like(peaks[4:], np.inf))
    complete, expected = normalizer(samples, target=LoudnessTarget(-12.0, -1.0))
    assert skipping.normalization.gain_db == pytest.approx(complete.normalization.gain_db, abs=1e-3)
    np.testing.assert_allclose(limited, expected, atol=1e-4)


def test_short_signal_over_full_scale_is_turned_down(normalizer):
    normalized, turned_down = normalizer(signals.tones(RATE, [(0.1, 6)]))
    assert normalized.normalization.mode is NormalizationMode.LINEAR
    assert np.abs(turned_down).max() <= 10 ** (-1.0 / 20)


@pytest.mark.parametrize("seconds", [0.4, 0.5, 5.0])
def test_normalize_dc_stays_below_the_ceiling(seconds, normalizer):
    _, normalized = normalizer(np.full((round(seconds * RATE), 2), 0.5, dtype=np.float32))
    assert np.abs(normalized).max() <= 10 ** (-1.0 / 20)


def test_normalize_signal_over_full_scale(normalizer):
    _, normalized = normalizer(signals.music(RATE, 4) * np.float32(1e4))
    assert measured_by_libebur128(normalized, RATE).integrated_lufs == pytest.approx(-16, abs=0.02)


def test_normalize_to_target_near_the_gate(normalizer):
    normalized, limited = normalizer(signals.of_plr(20, RATE, 4), target=LoudnessTarget(-70.0, -56.0))
    assert normalized.normalization.mode is NormalizationMode.LIMITED
    assert np.abs(limited).max() <= 10 ** (-56.0 / 20)


def test_normalize_without_ceiling_does_not_limit(normalizer):
    normalized, loud = normalizer(signals.spiky(RATE, 4), target=LoudnessTarget(-6.0, None))
    assert normalized.normalization.mode is NormalizationMode.LINEAR
    assert np.abs(loud).max() > 1


def test_estimate_errors_are_corrected_by_measuring(normalizer):
    # Loud infrasound does not count towards loudness, but limiting it creates overtones that do.
    infrasound = 0.3 * np.sin(2 * np.pi * 8 * np.arange(6 * RATE) / RATE)
    samples = signals.music(RATE, 6) * np.float32(0.15) + infrasound[:, None].astype(np.float32)
    normalized, limited = normalizer(samples, target=LoudnessTarget(-22.0, -1.0))
    assert normalized.normalization.mode is NormalizationMode.LIMITED
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-22, abs=0.02)
