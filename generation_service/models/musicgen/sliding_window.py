"""Pieces longer than the model's window: the last frames of one window are the prompt of the next.

Source: audiocraft 1.3.0, `MusicGen._generate_tokens` in models/musicgen.py and `BaseGenModel._generate_tokens` in
models/genmodel.py, for AudioGen, counted in frames of codes. Every window restarts at position 0 with the same text; it
reads its prompt and continues from there. Those of MusicGen:

    window 0  |0 ............ 1500|
    window 1           |900 = = = 1500 ......... 2400|      = prompt
    window 2                              |1800 = = = 2400 ...

Where the prompt of the piece changes, a window ends early, and the next one has as many frames before it as its prompt.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes

STRIDE_SHARE = 0.6
"""MusicGen's, 18 of 30 seconds."""
_HEADER = struct.Struct("<4I")
"""Of saved codes: the steps generated in earlier windows; then the frames of earlier windows, those of the prompt of
the current one, and its steps, whose codes follow in this order."""
_SAVED_CODE = np.dtype("<u2")


def window_stride(window: int, share: float = STRIDE_SHARE) -> int:
    """Frames between the starts of two windows. share: `LmConfig.stride_share`."""
    return round(window * share)


def plan_windows(frames: int, window: int, prompt_frames: int, starts: Sequence[int], stride: int) -> tuple[int, ...]:
    """The first frame that each window of `WindowedCodes` will read, by its arguments."""
    first, known, reads = 0, prompt_frames, [0]
    while True:
        end = next((start for start in starts if start > known), frames)
        count = min(end - first, window)
        if first + count == frames:
            return tuple(reads)
        known = first + count
        first += max(0, count - (window - stride))
        reads.append(first)


class WindowedCodes:
    """All codes of a piece while they are generated."""

    def __init__(
        self,
        delays: Sequence[int],
        frames: int,
        empty_code: int,
        window: int,
        prompt: Codes | None = None,
        starts: Sequence[int] = (),
        stride_share: float = STRIDE_SHARE,
    ) -> None:
        """`frames` in all, at most `window` at once. prompt: [K, n], the first n frames, n < `window`. starts: frames
        after those of the prompt at which a new window begins in any case, ascending. stride_share: as in `LmConfig`.
        """
        self.total_frames = frames
        self._delays = tuple(delays)
        self._empty_code = empty_code
        self._size = window
        self._stride = window_stride(window, stride_share)
        self._starts = starts
        self._first = 0
        self._earlier = np.zeros((len(self._delays), 0), np.int64)  # [K, _first]
        self._earlier_steps = 0  # Generated in earlier windows.
        self.window = self._open_window(prompt)
        """The codes of the current window, in which steps are counted."""

    @property
    def is_done(self) -> bool:
        return self.window.is_done and self.frames_ready == self.total_frames

    @property
    def first_read(self) -> int:
        """The first frame of the current window, which may be one of its prompt."""
        return self._first

    @property
    def window_start(self) -> int:
        """The first new frame of the current window."""
        return self._first + self.window.prompt_frames

    @property
    def frames_ready(self) -> int:
        """The number of frames of the piece that have a code in every codebook."""
        return self._first + self.window.frames_ready

    @property
    def generated_steps(self) -> int:
        """The number of steps whose codes were generated, in all windows."""
        return self._earlier_steps + self.window.step - self.window.prompt_frames

    def save(self) -> bytes:
        """Returns all codes so far, for `restore` of an object with the same arguments."""
        window = self.window
        prompt = window.select_frames(0, window.prompt_frames)
        parts = self._earlier, prompt, window.columns[:, 1 : 1 + window.step]
        return _HEADER.pack(self._earlier_steps, *(part.shape[1] for part in parts)) + b"".join(
            part.astype(_SAVED_CODE).tobytes() for part in parts
        )

    def restore(self, saved: bytes) -> None:
        """Takes the codes that `save` returned. Raises ValueError if they are damaged."""
        codebooks, offset = len(self._delays), _HEADER.size
        self._earlier_steps, *counts = _HEADER.unpack(saved[:offset])
        if len(saved) != offset + sum(counts) * codebooks * _SAVED_CODE.itemsize:
            raise ValueError(f"{len(saved)} bytes of codes, which should be of {sum(counts)} steps")
        parts = []
        for count in counts:
            part = np.frombuffer(saved, _SAVED_CODE, count * codebooks, offset).reshape(codebooks, count)
            parts.append(part.astype(np.int64))
            offset += part.nbytes
        self._earlier, prompt, columns = parts
        self._first = self._earlier.shape[1]
        self.window = self._open_window(prompt if prompt.size else None)
        self.window.restore(columns)

    def append(self, codes: Codes) -> bool:
        """Adds sampled codes, [K]. Returns True if a new window begins, which must be read from position 0."""
        self.window.append(codes)
        if not self.window.is_done or self.is_done:
            return False
        self._earlier_steps = self.generated_steps
        count = self.window.frames
        passed = max(0, count - (self._size - self._stride))
        self._earlier = np.concatenate([self._earlier, self.window.select_frames(0, passed)], axis=1)
        self._first += passed
        self.window = self._open_window(self.window.select_frames(passed, count))
        return True

    def select_frames(self, first: int, end: int) -> Codes:
        """The codes of the piece's frames from `first` to `end` (exclusive), all ready: [K, end - first]."""
        recent = self.window.select_frames(max(first, self._first) - self._first, max(end, self._first) - self._first)
        return np.concatenate([self._earlier[:, first:end], recent], axis=1)

    def _open_window(self, prompt: Codes | None) -> DelayedCodes:
        known = self._first + (0 if prompt is None else prompt.shape[1])
        end = next((start for start in self._starts if start > known), self.total_frames)
        return DelayedCodes(self._delays, min(end - self._first, self._size), self._empty_code, prompt)
