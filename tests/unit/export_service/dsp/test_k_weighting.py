"""K-weighting by matrix products, against the same biquads applied sample by sample."""

from __future__ import annotations

import numpy as np
import pyloudnorm
import pytest
from scipy.signal import sosfilt

from export_service.dsp.k_weighting import KWeighting
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


def weigh_by_sample(samples, rate):
    filters = pyloudnorm.Meter(rate, filter_class="DeMan")._filters.values()
    sections = np.array([[*stage.b, *stage.a] for stage in filters])
    return sosfilt(sections, samples.astype(np.float64), axis=0)


def deviation_db(found, expected):
    """Returns the mean square of the error relative to full scale, in dB."""
    return 10 * np.log10(np.square(found - expected).mean())


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
