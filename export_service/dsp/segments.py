"""Segments of a signal and their rows of 32 frames, the units in which signals are measured and limited.

Two layouts serve the meters: a buffer in order of time, from which the surroundings of a row can be cut, and a matrix
with one row of the signal in each column, in which one operation on a line works on a thousand rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from export_service.dsp.arrays import Samples

T = TypeVar("T", np.float32, np.float64)

ROW_FRAMES = 32
"""1 ms at 32 kHz."""
SEGMENT_ROWS = 1024
SEGMENT_FRAMES = SEGMENT_ROWS * ROW_FRAMES
"""About one second at 32 kHz; every pass over a signal works in segments of this size."""
REACH_ROWS = 2
"""What a row's true peak depends on lies within this many rows before and after it."""
REACH_FRAMES = (2 * REACH_ROWS + 1) * ROW_FRAMES
HISTORY_ROWS = 2 * REACH_ROWS
"""The rows before a segment that are kept: those of the last REACH_ROWS of them could not be completed earlier."""
STATE_LINES = 4
"""The lines below a segment's matrix in which `KWeighting` adds its state to each column."""
COPIED_ROWS = 128
"""Transposing this many rows at a time stays within the cache."""


class SegmentBuffer:
    """Collects a signal into segments, and keeps the HISTORY_ROWS before the segment; before the signal is silence."""

    def __init__(self, channels: int) -> None:
        self._signal = np.zeros((HISTORY_ROWS * ROW_FRAMES + SEGMENT_FRAMES, channels), dtype=np.float32)
        self.frames = 0
        """Of the segment so far."""
        frame, sample = self._signal.strides
        self.surroundings: Samples = np.lib.stride_tricks.as_strided(
            self._signal,
            (SEGMENT_ROWS, channels, REACH_FRAMES),
            (ROW_FRAMES * frame, sample, frame),
            writeable=False,
        )
        """[rows, channels, REACH_FRAMES]: what lies within REACH_ROWS of each row, starting with the row REACH_ROWS
        before the segment."""

    @property
    def is_full(self) -> bool:
        """Whether the segment is complete."""
        return self.frames == SEGMENT_FRAMES

    @property
    def rows(self) -> int:
        """The number of rows in the segment, the last of which may be incomplete."""
        return -(-self.frames // ROW_FRAMES)

    @property
    def segment(self) -> Samples:
        """The segment in whole rows: [rows * ROW_FRAMES, channels]; silence after its last frame."""
        begin = HISTORY_ROWS * ROW_FRAMES
        return self._signal[begin : begin + self.rows * ROW_FRAMES]

    def fill(self, samples: Samples) -> Samples:
        """Adds frames [frames, channels] until the segment is complete; returns the rest."""
        part = samples[: SEGMENT_FRAMES - self.frames]
        begin = HISTORY_ROWS * ROW_FRAMES + self.frames
        self._signal[begin : begin + len(part)] = part
        self.frames += len(part)
        self._signal[begin + len(part) :][: -self.frames % ROW_FRAMES] = 0.0
        return samples[len(part) :]

    def advance(self) -> None:
        """Begins the next segment."""
        end = self.rows * ROW_FRAMES
        self._signal[: HISTORY_ROWS * ROW_FRAMES] = self._signal[end : end + HISTORY_ROWS * ROW_FRAMES]
        self.frames = 0

    def fill_with_silence(self) -> None:
        """Adds the rows after the end of the signal in which its waveform rings on."""
        self.fill(np.zeros((HISTORY_ROWS * ROW_FRAMES, self._signal.shape[1]), dtype=np.float32))

    def iter_segments(self, blocks: Iterable[Samples]) -> Iterator[SegmentBuffer]:
        """Yields itself with each segment of a signal, and at last with the silence after its end."""
        for block in blocks:
            while len(block):
                block = self.fill(block)
                if self.is_full:
                    yield self
                    self.advance()
        if self.frames:
            yield self
            self.advance()
        self.fill_with_silence()
        yield self


class RowMatrix:
    """The rows of a segment and the HISTORY_ROWS before it as the columns of a matrix, row by row and in each row
    channel by channel.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._history = HISTORY_ROWS * channels
        columns = (HISTORY_ROWS + SEGMENT_ROWS) * channels
        self._matrix = np.zeros((ROW_FRAMES + STATE_LINES, columns), dtype=np.float32)
        self._rows = 0
        self._curvatures: Samples | None = None

    @property
    def segment(self) -> Samples:
        """The segment alone: [ROW_FRAMES + STATE_LINES, SEGMENT_ROWS * channels]; silence after its last row."""
        return self._matrix[:, self._history :]

    def load(self, segment: Samples) -> None:
        """Replaces the segment by the next one: [frames, channels], in whole rows."""
        lines, history = self._matrix[:ROW_FRAMES], self._history
        lines[:, :history] = lines[:, self._rows * self._channels : self._rows * self._channels + history].copy()
        self._rows, self._curvatures = len(segment) // ROW_FRAMES, None
        # As one number per frame, it is copied twice as fast.
        dtype = np.float32 if self._channels == 1 else np.complex64
        rows = segment.view(dtype).reshape(self._rows, ROW_FRAMES).T
        columns = lines[:, history:].view(dtype)
        for first in range(0, self._rows, COPIED_ROWS):
            part = slice(first, min(first + COPIED_ROWS, self._rows))
            columns[:, part] = rows[:, part]
        columns[:, self._rows :] = 0.0

    def peaks(self) -> Samples:
        """Returns the largest magnitude of each row: [HISTORY_ROWS + rows, channels]."""
        return self._largest(self._used())

    def curvatures(self) -> Samples:
        """Returns the largest magnitude of the second differences of each row: [HISTORY_ROWS + rows, channels]. They
        lie around its samples but the last, and around the last one of the row before; the first row here lacks that.
        """
        if self._curvatures is None:
            lines, step = self._used(), self._channels
            self._curvatures = self._largest(_slopes(_slopes(lines, step), step))
        return self._curvatures

    def _used(self) -> Samples:
        return self._matrix[:ROW_FRAMES, : self._history + self._rows * self._channels]

    def _largest(self, lines: Samples) -> Samples:
        return np.asarray(np.abs(lines).max(axis=0).reshape(-1, self._channels))


def _slopes(lines: Samples, step: int) -> Samples:
    """Returns the difference from each sample to the one before it, which is 0 for the first samples."""
    slopes = np.empty_like(lines)
    slopes[0, :step] = 0.0
    np.subtract(lines[0, step:], lines[-1, :-step], out=slopes[0, step:])
    np.subtract(lines[1:], lines[:-1], out=slopes[1:])
    return slopes


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
            if not filled and len(block) >= SEGMENT_FRAMES:
                yield block[:SEGMENT_FRAMES]
                block = block[SEGMENT_FRAMES:]
                continue
            part = block[: SEGMENT_FRAMES - filled]
            segment[filled : filled + len(part)] = part
            filled += len(part)
            block = block[len(part) :]
            if filled == SEGMENT_FRAMES:
                yield segment
                filled = 0
    if segment is not None and filled:
        yield segment[:filled]


def max_over_channels(rows: npt.NDArray[T]) -> npt.NDArray[T]:
    """Returns the largest of the values of one or two channels: [rows] from [rows, channels]."""
    return np.maximum(rows[:, 0], rows[:, -1])  # Twenty times as fast as max(axis=1).


def max_over_reach(rows: npt.NDArray[T]) -> npt.NDArray[T]:
    """Returns the largest value of the rows that each row's true peak depends on, without REACH_ROWS at both ends."""
    largest = rows[: len(rows) - 2 * REACH_ROWS]
    for shift in range(1, 2 * REACH_ROWS + 1):
        largest = np.maximum(largest, rows[shift : shift + len(largest)])
    return largest
