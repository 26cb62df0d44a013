"""The envelope that a limiter works from, recorded while the signal arrives: the peak and the K-weighted energy of each
row of 32 frames, which is 1 ms at 32 kHz.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from export_service.dsp.arrays import FloatArray, Samples
from export_service.dsp.true_peak import (
    REACH_ROWS,
    ROW_FRAMES,
    ROWS_PER_BATCH,
    build_annex2_example_interpolator,
    build_interpolator,
    compute_row_peaks,
    max_over_reach,
    oversampling_factor,
    row_windows,
)

SEGMENT_FRAMES = 32_768
"""About one second at 32 kHz; every pass over a signal works in segments of this size."""
SEGMENT_ROWS = SEGMENT_FRAMES // ROW_FRAMES
COLUMNS = 2
"""Peak and energy."""
FLOAT_BYTES = 8
BlockSource = Callable[[], Iterable[Samples]]
"""A signal that can be read more than once. Each call yields the same blocks, which can have any size."""


def split_into_segments(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Yields the signal in segments of SEGMENT_FRAMES; the last one may be shorter. A segment is valid only until the
    next one is requested.
    """
    segment: Samples | None = None
    filled = 0
    for block in blocks:
        if segment is None:
            segment = np.empty((SEGMENT_FRAMES, block.shape[1]), dtype=np.float32)
        while len(block):
            part = block[: SEGMENT_FRAMES - filled]
            segment[filled : filled + len(part)] = part
            filled += len(part)
            block = block[len(part) :]
            if filled == SEGMENT_FRAMES:
                yield segment
                filled = 0
    if segment is not None and filled:
        yield segment[:filled]


class Envelope:
    """Peak and energy of each row, stored in an unnamed temporary file: memory use is constant, and a crash leaves no
    file behind.

    `append` records sample peaks; `refine` raises those that matter to the true peak. All methods raise OSError if the
    disk fails.
    """

    def __init__(self, folder: Path, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._file = tempfile.TemporaryFile(suffix=".part", dir=folder, buffering=0)  # noqa: SIM115
        self.frames = 0

    @property
    def segments(self) -> int:
        """The number of segments so far; only the last one is shorter than SEGMENT_FRAMES."""
        return -(-self.frames // SEGMENT_FRAMES)

    def append(self, segment: Samples, power: FloatArray) -> None:
        """Appends the next segment [frames, channels] with its K-weighted power [frames]."""
        rows = -(-len(segment) // ROW_FRAMES)
        missing = rows * ROW_FRAMES - len(segment)
        if missing:
            segment_rows = np.pad(segment, ((0, missing), (0, 0))).reshape(rows, -1)
            power = np.pad(power, (0, missing))
        else:
            segment_rows = segment.reshape(rows, -1)
        energies = power.reshape(rows, ROW_FRAMES).sum(axis=1)
        self._write(self.segments, np.stack([compute_row_peaks(segment_rows).astype(np.float64), energies]))
        self.frames += len(segment)

    def segment(self, index: int) -> FloatArray:
        """Returns the peaks and the energies of a segment: [2, rows]; zero rows past the end of the signal."""
        frames = min(max(self.frames - index * SEGMENT_FRAMES, 0), SEGMENT_FRAMES)
        table = np.empty((COLUMNS, -(-frames // ROW_FRAMES)))
        self._file.seek(index * SEGMENT_ROWS * COLUMNS * FLOAT_BYTES)
        if self._file.readinto(table.data) != table.nbytes:
            raise OSError("the envelope file is shorter than what was written to it")
        return table

    def refine(self, blocks: Iterable[Samples], threshold: float) -> float:
        """Raises row peaks to the true peak wherever it may exceed the threshold; returns the largest peak."""
        max_peak = 0.0
        interpolators = build_interpolator(oversampling_factor(self._rate)), build_annex2_example_interpolator()
        for index, signal in enumerate(_with_context(split_into_segments(blocks))):
            table = self.segment(index)
            rows, is_last = table.shape[1], index + 1 == self.segments
            for channel in signal:
                # From row -1 to the row after the last one: a signal's waveform rings on beyond both of its ends.
                bounds, windows = (
                    max_over_reach(compute_row_peaks(channel.reshape(-1, ROW_FRAMES))),
                    row_windows(channel),
                )
                for interpolator in interpolators:
                    hot = np.flatnonzero(bounds * interpolator.max_gain > threshold)
                    hot = hot[((hot > 0) | (index == 0)) & ((hot <= rows) | is_last)]
                    for first in range(0, len(hot), ROWS_PER_BATCH):
                        batch = hot[first : first + ROWS_PER_BATCH]
                        peaks = interpolator.peaks(windows[batch], threshold)
                        np.maximum.at(table[0], np.clip(batch - 1, 0, rows - 1), peaks)
            self._write(index, table)
            max_peak = max(max_peak, float(table[0].max()))
        return max_peak

    def close(self) -> None:
        """Frees the disk space."""
        self._file.close()

    def _write(self, index: int, table: FloatArray) -> None:
        self._file.seek(index * SEGMENT_ROWS * COLUMNS * FLOAT_BYTES)
        view = memoryview(table.tobytes())
        while view:
            view = view[self._file.write(view) :]


def _with_context(segments: Iterator[Samples]) -> Iterator[Samples]:
    """Yields each segment [channels, frames] padded to whole rows, with the frames before and after it that its rows'
    windows reach.
    """
    margin = (REACH_ROWS + 1) * ROW_FRAMES
    segment = _next_channels(segments, 1)
    before = np.zeros((len(segment), margin), dtype=np.float32)
    while segment.size:
        following = _next_channels(segments, len(segment))
        missing = -segment.shape[1] % ROW_FRAMES
        after = np.zeros((len(segment), missing + margin), dtype=np.float32)
        head = following[:, :margin]
        after[:, missing : missing + head.shape[1]] = head
        yield np.concatenate([before, segment, after], axis=1)
        before, segment = segment[:, -margin:], following


def _next_channels(segments: Iterator[Samples], channels: int) -> Samples:
    return next(segments, np.empty((0, channels), dtype=np.float32)).T.copy()
