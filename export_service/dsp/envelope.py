"""The envelope that a limiter works from, recorded while the signal arrives: the peak and the K-weighted energy of each
row of 32 frames, which is 1 ms at 32 kHz.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.segments import (
    HISTORY_ROWS,
    REACH_FRAMES,
    REACH_ROWS,
    SegmentBuffer,
    max_over_channels,
)
from export_service.dsp.true_peak import (
    ROWS_PER_BATCH,
    build_annex2_example_interpolator,
    build_interpolator,
    oversampling_factor,
)

COLUMNS = 3
"""Peak, curvature and the root of the energy, which fits into float32 however loud the signal is."""
FLOAT_BYTES = 4
BlockSource = Callable[[], Iterable[Samples]]
"""A signal that can be read more than once. Each call yields the same blocks, which can have any size."""


class Envelope:
    """Peak and energy of each row, stored in an unnamed temporary file: memory use is constant, and a crash leaves no
    file behind.

    `append` records sample peaks; `refine` raises those that matter to the true peak. All methods raise OSError if the
    disk fails.
    """

    def __init__(self, folder: Path, sample_rate_hz: int, channels: int) -> None:
        self._rate, self._channels = sample_rate_hz, channels
        self._file = tempfile.TemporaryFile(suffix=".part", dir=folder, buffering=0)  # noqa: SIM115
        self.rows = 0
        self.frames = 0

    def append(self, peaks: Samples, curvatures: Samples, energies: FloatArray, frames: int) -> None:
        """Appends the rows of the next segment, [rows] each, and its number of frames."""
        table = np.empty((len(peaks), COLUMNS), dtype=np.float32)
        table[:, 0], table[:, 1], table[:, 2] = peaks, curvatures, np.sqrt(energies)
        self._write(self.rows, table)
        self.rows += len(peaks)
        self.frames += frames

    def peaks(self, begin: int, end: int) -> Samples:
        """Returns the peaks of rows; none past the end of the signal."""
        return self._read(begin, min(end, self.rows))[:, 0]

    def energies(self, begin: int, end: int) -> FloatArray:
        """Returns the energies of rows; none past the end of the signal."""
        return np.square(self._read(begin, min(end, self.rows))[:, 2], dtype=np.float64)

    def refine(self, blocks: Iterable[Samples], threshold: float) -> float:
        """Raises row peaks to the true peak wherever it may exceed the threshold; returns the largest peak."""
        max_peak, first = 0.0, -REACH_ROWS
        for buffer in SegmentBuffer(self._channels).iter_segments(blocks):
            max_peak = max(max_peak, self._refine_rows(first, buffer, threshold))
            first += buffer.rows
        return max_peak

    def close(self) -> None:
        """Frees the disk space."""
        self._file.close()

    def _refine_rows(self, first: int, buffer: SegmentBuffer, threshold: float) -> float:
        """Refines the rows from `first` on whose surroundings are in the buffer; returns their largest peak."""
        begin, end = max(first - REACH_ROWS, 0), min(first + buffer.rows + REACH_ROWS, self.rows)
        table = self._read(begin, end)
        around = np.zeros((buffer.rows + HISTORY_ROWS, COLUMNS), dtype=np.float32)
        around[begin - first + REACH_ROWS :][: len(table)] = table
        for interpolator in build_interpolator(oversampling_factor(self._rate)), build_annex2_example_interpolator():
            hot = np.flatnonzero(interpolator.bounds(around[:, 0], around[:, 1]) > threshold)
            for batch in np.split(hot, range(ROWS_PER_BATCH, len(hot), ROWS_PER_BATCH)) if len(hot) else ():
                surroundings = buffer.surroundings[batch].reshape(-1, REACH_FRAMES)
                peaks = max_over_channels(interpolator.peaks(surroundings, threshold).reshape(len(batch), -1))
                # A signal's waveform rings on beyond both of its ends.
                np.maximum.at(table[:, 0], np.clip(first + batch, 0, self.rows - 1) - begin, peaks)
        self._write(begin, table)
        return float(table[:, 0].max(initial=0.0))

    def _read(self, begin: int, end: int) -> Samples:
        table = np.empty((max(end - begin, 0), COLUMNS), dtype=np.float32)
        self._file.seek(begin * COLUMNS * FLOAT_BYTES)
        if self._file.readinto(table.data) != table.nbytes:
            raise OSError("the envelope file is shorter than what was written to it")
        return table

    def _write(self, begin: int, table: Samples) -> None:
        self._file.seek(begin * COLUMNS * FLOAT_BYTES)
        view = memoryview(table.tobytes())
        while view:
            view = view[self._file.write(view) :]
