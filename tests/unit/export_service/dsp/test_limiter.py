"""The limiter: what it does to a signal, by meters that nobody here wrote."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.envelope import SEGMENT_FRAMES
from export_service.dsp.gain_solver import level
from export_service.dsp.limiter import MAX_REDUCTION_DB, Limiter, Setting
from export_service.dsp.measurement import Measurement
from export_service.dsp.normalization import Aim, NormalizationMode
from tests.support import signals
from tests.support.signals import measured_by_libebur128, true_peak_by_soxr

AIM = Aim(target_lufs=-16.0, ceiling_dbtp=-1.0)
RATE = 32_000


@pytest.fixture
def leveller(tmp_path):
    """Brings samples to their level: what is said of it, and the samples."""
    measurements = []

    def bring(samples, rate=RATE, aim=AIM, sizes=(50_000,)):
        measurement = Measurement(rate, samples.shape[1], tmp_path)
        measurements.append(measurement)
        for block in signals.in_chunks(samples, sizes):
            measurement.feed(block)
        levelled = level(measurement, measurement.finish(), lambda: signals.in_chunks(samples, sizes), aim)
        gain = np.float32(10 ** (levelled.gain_db / 20))
        return levelled, np.concatenate([block * gain for block in levelled.blocks()])

    yield bring
    for measurement in measurements:
        measurement.close()


def gain_of(limited, samples):
    """The gain of each frame in dB, where a sample is loud enough to tell."""
    loudest = np.abs(samples).argmax(axis=1)[:, None]
    before, after = (np.take_along_axis(signal, loudest, 1)[:, 0].astype(np.float64) for signal in (samples, limited))
    told = np.abs(before) > 1e-3
    return np.flatnonzero(told), 20 * np.log10(after[told] / before[told])


def steepest_db_per_ms(limited, samples, rate):
    """Of the gain, where a step would be as steep as a frame is short."""
    frames, gains = gain_of(limited, samples)
    slopes = np.diff(gains) / np.diff(frames) * rate / 1000
    return np.abs(slopes[np.diff(frames) < rate // 1000]).max()


@pytest.mark.parametrize(
    ("plr", "rate"),
    [(8, 32_000), (12, 32_000), (16, 32_000), (17, 44_100), (18, 48_000), (19, 48_000), (20, 32_000)],
)
def test_target_and_ceiling_are_met_together(plr, rate, leveller):
    levelled, limited = leveller(signals.of_plr(plr, rate, 6), rate)
    assert levelled.normalization.mode is (NormalizationMode.LIMITED if plr > 15 else NormalizationMode.LINEAR)
    assert levelled.normalization.shortfall_lu <= 0.1
    figures = measured_by_libebur128(limited, rate)
    assert figures.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert levelled.measured.loudness.integrated_lufs == pytest.approx(figures.integrated_lufs, abs=0.01)
    assert figures.true_peak_dbtp <= -1.0
    assert true_peak_by_soxr(limited, rate) <= -1.0
    assert np.abs(limited).max() <= 10 ** (-1.0 / 20)


@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_dense_hits_are_limited_briskly(rate, leveller):
    # Held for 3 ms each, they would cost more loudness than 6 dB can make up for.
    samples = signals.of_plr(20, rate, 6, every=0.5)
    levelled, limited = leveller(samples, rate)
    assert levelled.normalization.shortfall_lu == 0
    figures = measured_by_libebur128(limited, rate)
    assert figures.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert max(figures.true_peak_dbtp, true_peak_by_soxr(limited, rate)) <= -1.0
    assert steepest_db_per_ms(limited, samples, rate) < 1.5 + 0.01 * rate / 1000


def sub_bass():
    """Notes of 38 Hz, and quiet chords: what limiting makes of such bass is nothing that its loudness foretells."""
    time = np.arange(4 * RATE) / RATE
    notes = 0.6 * np.sin(2 * np.pi * 38 * time) * (time % 0.5 < 0.12)
    chords = sum(0.01 * np.sin(2 * np.pi * hz * time) for hz in (110.0, 220.0, 277.2, 329.6))
    return (notes + chords)[:, None].astype(np.float32)


def test_sub_bass_reaches_its_target(leveller):
    levelled, limited = leveller(sub_bass(), aim=Aim(-16.3, -1.0))
    assert levelled.normalization.shortfall_lu == 0
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-16.3, abs=0.05)


def test_a_target_that_no_pace_reaches_is_missed_gently(leveller):
    samples = sub_bass()
    levelled, limited = leveller(samples, aim=Aim(-15.5, -1.0))
    said = levelled.normalization
    assert said.largest_reduction_db == pytest.approx(6.0, abs=0.05)
    assert said.shortfall_lu > 0.1
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-15.5 - said.shortfall_lu, abs=0.05)
    frames, gains = gain_of(limited, samples)
    let_go = (np.diff(gains) / np.diff(frames))[np.diff(frames) < RATE // 1000] * RATE / 1000
    assert let_go.max() < 0.5, "dB per ms"


def test_bass_keeps_its_shape(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE)
    samples = np.repeat(tone[:, None], 2, axis=1).astype(np.float32)
    measurement = Measurement(RATE, 2, tmp_path)
    measurement.feed(samples)
    measurement.finish()
    limiter = Limiter(measurement.envelope, lambda: [samples], RATE)
    limited = np.concatenate(list(limiter.blocks(Setting(gain_db=8.0, ceiling_dbtp=-1.0))))[RATE : 2 * RATE, 0]
    measurement.close()
    spectrum = np.abs(np.fft.rfft(limited))  # A second: the tone lies in bin 50, its overtones in others.
    assert spectrum[np.arange(len(spectrum)) != 50].max() < spectrum[50] * 10 ** (-50 / 20)
    assert np.abs(limited).max() == pytest.approx(10 ** (-1 / 20), rel=0.01)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", ["music", "spiky"])
def test_loud_targets(kind, channels, leveller):
    levelled, limited = leveller(getattr(signals, kind)(RATE, 8, channels), aim=Aim(-12.0, -1.0))
    said = levelled.normalization
    assert said.mode is NormalizationMode.LIMITED
    assert 0 < said.limited_share < 1
    assert 0 < said.largest_reduction_db <= MAX_REDUCTION_DB
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-12 - said.shortfall_lu, abs=0.05)
    assert true_peak_by_soxr(limited, RATE) <= -1.0


def test_full_band_noise(leveller):
    levelled, limited = leveller(signals.noise(RATE, 8), aim=Aim(-9.0, -1.0))
    assert levelled.normalization.mode is NormalizationMode.LIMITED
    assert measured_by_libebur128(limited, RATE).true_peak_dbtp <= -0.8
    assert true_peak_by_soxr(limited, RATE) <= -0.8


def test_beyond_6_db_it_stops_and_says_so(leveller):
    levelled, limited = leveller(signals.of_plr(26, RATE, 6))
    said = levelled.normalization
    assert said.mode is NormalizationMode.LIMITED
    assert said.largest_reduction_db == pytest.approx(6.0, abs=0.01)
    assert said.shortfall_lu > 3
    assert f"held back {said.shortfall_lu:.2f} LU" in said.reason
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-16 - said.shortfall_lu, abs=0.05)
    assert true_peak_by_soxr(limited, RATE) <= -1.0


def test_one_gain_for_all_channels(leveller):
    samples = signals.spiky(RATE, 4)
    samples[:, 1] *= np.float32(0.1)
    _, limited = leveller(samples, aim=Aim(-12.0, -1.0))
    loud = np.abs(samples) > 1e-3
    both = loud.all(axis=1)
    gains = limited[both].astype(np.float64) / samples[both]
    np.testing.assert_allclose(gains[:, 0], gains[:, 1], rtol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 32_000, 192_000])
def test_the_gain_has_no_steps(rate, leveller):
    samples = signals.spiky(rate, 4)
    levelled, limited = leveller(samples, rate, Aim(-12.0, -1.0))
    assert levelled.normalization.largest_reduction_db > 3
    assert steepest_db_per_ms(limited, samples, rate) < 1.5 + 0.01 * rate / 1000


def test_a_peak_is_met_in_time_and_let_go_within_40_ms(leveller):
    samples = signals.tones(RATE, [(4, -20)])
    samples[2 * RATE] = 0.999
    levelled, limited = leveller(samples, aim=Aim(-16.0, -1.0))
    frames, gains = gain_of(limited, samples)
    turned_down = frames[gains < levelled.normalization.gain_db - 0.01]
    assert levelled.normalization.largest_reduction_db > 2
    assert 2 * RATE - 0.012 * RATE < turned_down[0] < 2 * RATE
    assert 2 * RATE < turned_down[-1] < 2 * RATE + 0.05 * RATE
    share = (turned_down[-1] - turned_down[0]) / len(samples)
    assert levelled.normalization.limited_share == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("where", ["first", "last"])
def test_peaks_at_the_ends(where, leveller):
    samples = signals.tones(RATE, [(3, -20)])
    samples[slice(0, 3) if where == "first" else slice(-3, None)] = 0.9
    levelled, limited = leveller(samples)
    assert levelled.normalization.mode is NormalizationMode.LIMITED
    # With silence around it: the waveform rings on.
    assert true_peak_by_soxr(np.pad(limited, ((200, 200), (0, 0))), RATE) <= -1.0


@pytest.mark.parametrize("sizes", [[1_000, 77], [32_768], [100_000]])
def test_the_same_to_the_last_bit_however_it_is_cut(sizes, leveller):
    samples = signals.spiky(RATE, 5)
    one, other = leveller(samples), leveller(samples, sizes=sizes)
    assert one[0].normalization == other[0].normalization
    np.testing.assert_array_equal(one[1], other[1])


def test_a_signal_of_whole_segments(leveller):
    samples = signals.spiky(RATE, 5)[: 4 * SEGMENT_FRAMES]
    levelled, limited = leveller(samples, aim=Aim(-12.0, -1.0))
    said = levelled.normalization
    assert said.mode is NormalizationMode.LIMITED
    assert len(limited) == len(samples)
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-12 - said.shortfall_lu, abs=0.05)


def test_100_ms_over_full_scale_are_turned_down_not_limited(leveller):
    levelled, turned_down = leveller(signals.tones(RATE, [(0.1, 6)]))
    assert levelled.normalization.mode is NormalizationMode.LINEAR
    assert np.abs(turned_down).max() <= 10 ** (-1.0 / 20)


@pytest.mark.parametrize("seconds", [0.4, 0.5, 5.0])
def test_dc(seconds, leveller):
    _, levelled = leveller(np.full((round(seconds * RATE), 2), 0.5, dtype=np.float32))
    assert np.abs(levelled).max() <= 10 ** (-1.0 / 20)


def test_over_full_scale(leveller):
    _, levelled = leveller(signals.music(RATE, 4) * np.float32(1e4))
    assert measured_by_libebur128(levelled, RATE).integrated_lufs == pytest.approx(-16, abs=0.02)


def test_a_target_near_the_gate(leveller):
    levelled, limited = leveller(signals.of_plr(20, RATE, 4), aim=Aim(-70.0, -56.0))
    assert levelled.normalization.mode is NormalizationMode.LIMITED
    assert np.abs(limited).max() <= 10 ** (-56.0 / 20)


def test_no_ceiling_no_limiter(leveller):
    levelled, loud = leveller(signals.spiky(RATE, 4), aim=Aim(-6.0, None))
    assert levelled.normalization.mode is NormalizationMode.LINEAR
    assert np.abs(loud).max() > 1


def test_what_the_envelope_misjudges_is_corrected_by_measuring(leveller):
    # Limiting a loud infrasound, which the loudness does not count, makes overtones that it does count.
    infrasound = 0.3 * np.sin(2 * np.pi * 8 * np.arange(6 * RATE) / RATE)
    samples = signals.music(RATE, 6) * np.float32(0.15) + infrasound[:, None].astype(np.float32)
    levelled, limited = leveller(samples, aim=Aim(-22.0, -1.0))
    assert levelled.normalization.mode is NormalizationMode.LIMITED
    assert measured_by_libebur128(limited, RATE).integrated_lufs == pytest.approx(-22, abs=0.02)
