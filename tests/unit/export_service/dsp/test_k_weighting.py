"""K-weighting by matrix products, against the same biquads applied sample by sample."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import sosfilt

from export_service.dsp.k_weighting import KWeighting, biquads
from export_service.dsp.segments import ROW_FRAMES, SEGMENT_FRAMES, RowMatrix
from tests.support import signals


def weigh(samples, rate, scale=1.0):
    """Filters whole segments; returns [frames, channels]."""
    channels = samples.shape[1]
    weighting, matrix, weighted = KWeighting(rate, channels), RowMatrix(channels), []
    for start in range(0, len(samples), SEGMENT_FRAMES):
        matrix.load(samples[start : start + SEGMENT_FRAMES])
        rows = weighting.weigh(matrix.segment * np.float32(scale), scale).reshape(ROW_FRAMES, -1, channels)
        weighted.append(rows.transpose(1, 0, 2).reshape(-1, channels).copy())
    return np.concatenate(weighted)


def reference_biquads(rate):
    filters = pyloudnorm.Meter(rate, filter_class="DeMan")._filters.values()
    return np.array([[*stage.b, *stage.a] for stage in filters])


def weigh_by_sample(samples, rate):
    return sosfilt(reference_biquads(rate), samples.astype(np.float64), axis=0)


def deviation_db(found, expected):
    """Returns the mean square of the error relative to full scale, in dB."""
    return 10 * np.log10(np.square(found - expected).mean())


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_biquads_are_those_of_pyloudnorm(rate):
    np.testing.assert_allclose(biquads(rate), reference_biquads(rate), rtol=1e-12)


def test_biquads_at_48_khz_are_those_of_the_standard():
    shelf, high_pass = biquads(48_000)  # BS.1770-5, tables 1 and 2.
    assert shelf == pytest.approx(
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585], abs=1e-9
    )
    assert high_pass == pytest.approx([1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621], abs=1e-9)


@pytest.mark.parametrize("rate", [8_000, 32_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_equals_the_filters_applied_sample_by_sample(rate, channels, offset):
    samples = signals.noise(8_000, 3 * SEGMENT_FRAMES / 8_000, channels) + np.float32(offset)
    assert deviation_db(weigh(samples, rate), weigh_by_sample(samples, rate)) < -135


@pytest.mark.parametrize("rate", [32_000, 192_000])
def test_infrasound_is_filtered_out_precisely(rate):
    time = np.arange(2 * SEGMENT_FRAMES) / rate
    samples = (0.9 * np.sin(2 * np.pi * 3 * time))[:, None].astype(np.float32)
    assert deviation_db(weigh(samples, rate), weigh_by_sample(samples, rate)) < -130


def test_scale_may_change_between_segments():
    samples = signals.noise(32_000, 2 * SEGMENT_FRAMES / 32_000)
    weighting, matrix = KWeighting(32_000, 2), RowMatrix(2)
    matrix.load(samples[:SEGMENT_FRAMES])
    weighting.weigh(matrix.segment * np.float32(0.01), 0.01)
    matrix.load(samples[SEGMENT_FRAMES:])
    found = weighting.weigh(matrix.segment, 1.0).reshape(ROW_FRAMES, -1, 2).transpose(1, 0, 2).reshape(-1, 2)
    assert deviation_db(found, weigh_by_sample(samples, 32_000)[SEGMENT_FRAMES:]) < -135
