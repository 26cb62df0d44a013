"""Pieces longer than a model's window: the last frames of one window are the first of the next.

Source: audiocraft 1.3.0, `MusicGen._generate_tokens` in models/musicgen.py, counted in frames of codes. A window begins
anew at position 0, with the same prompt; it reads the frames that it is given and goes on from there.

    window 0  |0 ............ 1500|
    window 1           |900 = = = 1500 ......... 2400|      = given
    window 2                              |1800 = = = 2400 ...
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generation_service.models.musicgen.delay_pattern import DelayedCodes


def stride_of(window: int) -> int:
    """Frames from the beginning of a window to that of the next: 18 of 30 seconds, audiocraft's `extend_stride`."""
    return window * 3 // 5


class WindowedCodes:
    """All codes of a piece, as they are made. Steps are those of the current window."""

    def __init__(self, delays: Sequence[int], frames: int, none: int, window: int, given: Tensor | None = None) -> None:
        """`frames` in all; at most `window` of them at once. given: int64 [K, n], the first, fewer than a window."""
        self.count = frames
        """Frames in all."""
        self._delays = tuple(delays)
        self._none = none
        self._size = window
        self._first = 0
        self._earlier = torch.zeros(len(self._delays), 0, dtype=torch.int64)  # [K, _first]
        self._window = self._open(given)

    @property
    def step(self) -> int:
        """Steps of the current window that are known; the model has to have read those before `last`."""
        return self._window.step

    @property
    def last(self) -> Tensor:
        """The newest step's codes, the next input: int64 [K]."""
        return self._window.last

    @property
    def is_done(self) -> bool:
        return self._window.is_done and self.frames_ready == self.count

    @property
    def frames_ready(self) -> int:
        """Frames of the piece that have their codes of all codebooks."""
        return self._first + self._window.frames_ready

    def add(self, codes: Tensor) -> bool:
        """codes: int64 [K] as sampled. True where that filled the window and a new one begins, to be read from 0."""
        self._window.add(codes)
        if not self._window.is_done or self.is_done:
            return False
        stride = stride_of(self._size)
        self._earlier = torch.cat([self._earlier, self._window.frames(0, stride)], dim=1)
        self._first += stride
        self._window = self._open(self._window.frames(stride, self._size))
        return True

    def inputs(self, first: int, end: int) -> Tensor:
        """What the model reads at the steps from `first` to before `end` of this window: int64 [K, end - first]."""
        return self._window.inputs(first, end)

    def frames(self, first: int, end: int) -> Tensor:
        """The codes of the piece's frames from `first` to before `end`, all ready: int64 [K, end - first]."""
        recent = self._window.frames(max(first, self._first) - self._first, max(end, self._first) - self._first)
        return torch.cat([self._earlier[:, first:end], recent], dim=1)

    def _open(self, given: Tensor | None) -> DelayedCodes:
        return DelayedCodes(self._delays, min(self.count - self._first, self._size), self._none, given)
