"""What a limiter has to know of a signal, kept while it arrives: the peak and the K-weighted energy of each row of 32
frames, which is 1 ms at 32 kHz.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from export_service.dsp.loudness import Samples, Series
from export_service.dsp.true_peak import (
    REACH_ROWS,
    ROW,
    ROWS_AT_ONCE,
    example_interpolator,
    interpolator,
    magnitudes,
    oversampling,
    row_windows,
    within_reach,
)

SEGMENT_FRAMES = 32_768
"""About a second of 32 kHz, the unit of all passes over a signal."""
SEGMENT_ROWS = SEGMENT_FRAMES // ROW
COLUMNS = 2
"""Peak and energy."""
FLOAT_BYTES = 8
Blocks = Callable[[], Iterable[Samples]]
"""A signal that can be gone through again and again: blocks of any size, the same each time."""


def in_segments(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The same signal in segments of SEGMENT_FRAMES, the last one shorter; each is good until the next is asked for."""
    segment: Samples | None = None
    filled = 0
    for block in blocks:
        if segment is None:
            segment = np.empty((SEGMENT_FRAMES, block.shape[1]), dtype=np.float32)
        while len(block):
            taken = block[: SEGMENT_FRAMES - filled]
            segment[filled : filled + len(taken)] = taken
            filled += len(taken)
            block = block[len(taken) :]
            if filled == SEGMENT_FRAMES:
                yield segment
                filled = 0
    if segment is not None and filled:
        yield segment[:filled]


class Envelope:
    """Peaks and energies row by row, in a file without a name: memory does not grow, and nothing is left of it.

    Rows begin with the peak of their samples; `refine` raises those that matter to the peak of the waveform.
    Methods raise OSError where the disk refuses.
    """

    def __init__(self, folder: Path, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._file = tempfile.TemporaryFile(suffix=".part", dir=folder, buffering=0)  # noqa: SIM115
        self.frames = 0

    @property
    def segments(self) -> int:
        """Segments so far; only the last one is shorter than SEGMENT_FRAMES."""
        return -(-self.frames // SEGMENT_FRAMES)

    def append(self, segment: Samples, power: Series) -> None:
        """Takes in the next segment [frames, channels], and its K-weighted power by frame."""
        rows = -(-len(segment) // ROW)
        missing = rows * ROW - len(segment)
        if missing:
            segment_rows = np.pad(segment, ((0, missing), (0, 0))).reshape(rows, -1)
            power = np.pad(power, (0, missing))
        else:
            segment_rows = segment.reshape(rows, -1)
        energies = power.reshape(rows, ROW).sum(axis=1)
        self._put(self.segments, np.stack([magnitudes(segment_rows).astype(np.float64), energies]))
        self.frames += len(segment)

    def segment(self, index: int) -> Series:
        """Peaks and energies of a segment: [2, rows]; without rows past the end."""
        frames = min(max(self.frames - index * SEGMENT_FRAMES, 0), SEGMENT_FRAMES)
        table = np.empty((COLUMNS, -(-frames // ROW)))
        self._file.seek(index * SEGMENT_ROWS * COLUMNS * FLOAT_BYTES)
        if self._file.readinto(table.data) != table.nbytes:
            raise OSError("the envelope is shorter than what was written to it")
        return table

    def refine(self, blocks: Iterable[Samples], threshold: float) -> float:
        """Raises peaks to those of the waveform between the samples, wherever that may pass the threshold; returns the
        largest.
        """
        largest = 0.0
        interpolators = interpolator(oversampling(self._rate)), example_interpolator()
        for index, signal in enumerate(_with_surroundings(in_segments(blocks))):
            table = self.segment(index)
            rows, is_last = table.shape[1], index + 1 == self.segments
            for channel in signal:
                # From row -1 to the row after the last: beyond both of its ends a signal's waveform rings on.
                bounds, windows = within_reach(magnitudes(channel.reshape(-1, ROW))), row_windows(channel)
                for between in interpolators:
                    hot = np.flatnonzero(bounds * between.largest_gain > threshold)
                    hot = hot[((hot > 0) | (index == 0)) & ((hot <= rows) | is_last)]
                    for first in range(0, len(hot), ROWS_AT_ONCE):
                        some = hot[first : first + ROWS_AT_ONCE]
                        peaks = between.peaks(windows[some], threshold)
                        np.maximum.at(table[0], np.clip(some - 1, 0, rows - 1), peaks)
            self._put(index, table)
            largest = max(largest, float(table[0].max()))
        return largest

    def close(self) -> None:
        """Gives its disk space back."""
        self._file.close()

    def _put(self, index: int, table: Series) -> None:
        self._file.seek(index * SEGMENT_ROWS * COLUMNS * FLOAT_BYTES)
        view = memoryview(table.tobytes())
        while view:
            view = view[self._file.write(view) :]


def _with_surroundings(segments: Iterator[Samples]) -> Iterator[Samples]:
    """Each segment [channels, frames] in whole rows, with what is reached from the rows before and after it."""
    margin = (REACH_ROWS + 1) * ROW
    segment = _next_channels(segments, 1)
    before = np.zeros((len(segment), margin), dtype=np.float32)
    while segment.size:
        following = _next_channels(segments, len(segment))
        missing = -segment.shape[1] % ROW
        after = np.zeros((len(segment), missing + margin), dtype=np.float32)
        head = following[:, :margin]
        after[:, missing : missing + head.shape[1]] = head
        yield np.concatenate([before, segment, after], axis=1)
        before, segment = segment[:, -margin:], following


def _next_channels(segments: Iterator[Samples], channels: int) -> Samples:
    return next(segments, np.empty((0, channels), dtype=np.float32)).T.copy()
