"""Pieces longer than the model's window: the last frames of one window are the prompt of the next.

Source: audiocraft 1.3.0, `MusicGen._generate_tokens` in models/musicgen.py, counted in frames of codes. Every window
restarts at position 0 with the same text; it reads its prompt and continues from there.

    window 0  |0 ............ 1500|
    window 1           |900 = = = 1500 ......... 2400|      = prompt
    window 2                              |1800 = = = 2400 ...
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generation_service.models.musicgen.delay_pattern import DelayedCodes


def window_stride(window: int) -> int:
    """Frames between the starts of two windows: audiocraft's `extend_stride`, which is 18 of 30 seconds."""
    return window * 3 // 5


class WindowedCodes:
    """All codes of a piece while they are generated. Steps are counted within the current window."""

    def __init__(
        self, delays: Sequence[int], frames: int, empty_code: int, window: int, prompt: Tensor | None = None
    ) -> None:
        """`frames` in all, at most `window` at once. prompt: int64 [K, n], the first n frames, n < `window`."""
        self.total_frames = frames
        self._delays = tuple(delays)
        self._empty_code = empty_code
        self._size = window
        self._first = 0
        self._earlier = torch.zeros(len(self._delays), 0, dtype=torch.int64)  # [K, _first]
        self._window = self._open_window(prompt)

    @property
    def step(self) -> int:
        """The number of known steps of the current window. The model must have read those before `newest`."""
        return self._window.step

    @property
    def newest(self) -> Tensor:
        """The codes of the newest step, which are the model's next input: int64 [K]."""
        return self._window.newest

    @property
    def is_done(self) -> bool:
        return self._window.is_done and self.frames_ready == self.total_frames

    @property
    def frames_ready(self) -> int:
        """The number of frames of the piece that have a code in every codebook."""
        return self._first + self._window.frames_ready

    def append(self, codes: Tensor) -> bool:
        """Adds sampled codes, int64 [K]. Returns True if a new window begins, which must be read from position 0."""
        self._window.append(codes)
        if not self._window.is_done or self.is_done:
            return False
        stride = window_stride(self._size)
        self._earlier = torch.cat([self._earlier, self._window.frames(0, stride)], dim=1)
        self._first += stride
        self._window = self._open_window(self._window.frames(stride, self._size))
        return True

    def inputs(self, first: int, end: int) -> Tensor:
        """The model's inputs at the steps from `first` to `end` (exclusive) of this window: int64 [K, end - first]."""
        return self._window.inputs(first, end)

    def frames(self, first: int, end: int) -> Tensor:
        """The codes of the piece's frames from `first` to `end` (exclusive), all ready: int64 [K, end - first]."""
        recent = self._window.frames(max(first, self._first) - self._first, max(end, self._first) - self._first)
        return torch.cat([self._earlier[:, first:end], recent], dim=1)

    def _open_window(self, prompt: Tensor | None) -> DelayedCodes:
        return DelayedCodes(self._delays, min(self.total_frames - self._first, self._size), self._empty_code, prompt)
