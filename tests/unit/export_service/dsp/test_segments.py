"""Segments in both layouts, against plain slicing."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.segments import (
    HISTORY_ROWS,
    REACH_FRAMES,
    REACH_ROWS,
    ROW_FRAMES,
    SEGMENT_FRAMES,
    RowMatrix,
    SegmentBuffer,
    max_over_reach,
    split_into_segments,
)
from tests.support import signals

FRAMES = SEGMENT_FRAMES + 10_001


@pytest.fixture(params=[1, 2], ids=["mono", "stereo"])
def samples(request):
    return signals.noise(32_000, FRAMES / 32_000, request.param)


@pytest.mark.parametrize("sizes", [[FRAMES], [1, 31, 4_000], [65_536]])
def test_surroundings_of_all_rows_are_those_of_the_signal(samples, sizes):
    buffer = SegmentBuffer(samples.shape[1])
    around = REACH_ROWS * ROW_FRAMES
    padded = np.pad(samples, ((2 * around, 4 * around), (0, 0)))
    row = 0
    for segment in buffer.iter_segments(signals.in_chunks(samples, sizes)):
        for index in range(segment.rows):
            expected = padded[row * ROW_FRAMES :][:REACH_FRAMES].T
            np.testing.assert_array_equal(segment.surroundings[index], expected)
            row += 1
    assert row == -(-FRAMES // ROW_FRAMES) + HISTORY_ROWS


def test_row_matrix_finds_peaks_and_curvatures(samples):
    channels, buffer, matrix = samples.shape[1], SegmentBuffer(samples.shape[1]), RowMatrix(samples.shape[1])
    peaks, curvatures = [], []
    for segment in buffer.iter_segments([samples]):
        matrix.load(segment.segment)
        new = slice(HISTORY_ROWS, None) if peaks else slice(None)
        peaks.append(matrix.peaks()[new])
        curvatures.append(matrix.curvatures()[new])
    rows = HISTORY_ROWS - (-FRAMES // ROW_FRAMES) + HISTORY_ROWS
    padded = np.zeros((rows * ROW_FRAMES, channels), dtype=np.float32)
    padded[HISTORY_ROWS * ROW_FRAMES :][:FRAMES] = samples
    np.testing.assert_array_equal(np.concatenate(peaks), np.abs(padded).reshape(rows, -1, channels).max(axis=1))
    around_previous = np.pad(np.abs(np.diff(padded, 2, axis=0)), ((2, 0), (0, 0))).reshape(rows, -1, channels)
    np.testing.assert_allclose(np.concatenate(curvatures), around_previous.max(axis=1), atol=1e-6)


@pytest.mark.parametrize("sizes", [[FRAMES], [SEGMENT_FRAMES], [1_000, 3], [3 * SEGMENT_FRAMES]])
def test_split_into_segments_keeps_the_signal(samples, sizes):
    segments = [segment.copy() for segment in split_into_segments(signals.in_chunks(samples, sizes))]
    assert [len(segment) for segment in segments] == [SEGMENT_FRAMES, FRAMES - SEGMENT_FRAMES]
    np.testing.assert_array_equal(np.concatenate(segments), samples)


def test_max_over_reach():
    assert max_over_reach(np.array([9.0, 0, 0, 1, 0, 0, 2, 0])).tolist() == [9.0, 1.0, 2.0, 2.0]
