"""A ping-pong delay in time with the beat: mono in, stereo out, block by block."""

from __future__ import annotations

from typing import Final

import numpy as np

from generation_service.models.base import FloatArray

_FEEDBACK: Final = 0.42
_RIGHT_LEVEL: Final = 0.78
"""The level of the right side, whose repeat comes second: the image leans to where the sound came from."""
_TAPER: Final = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)
"""What each repeat passes: a low-pass at about a fifth of the sample rate, because repeats lose their highs."""
_REACH: Final = len(_TAPER) // 2
_SILENCE: Final = 1e-6


class StereoDelay:
    """Repeats its input on the left, then on the right, then more quietly on the left again, …

    Its memory is proportional to the time between two repeats.
    """

    def __init__(self, delay_frames: int, block: int) -> None:
        """`delay_frames` is the time between two repeats."""
        self._delay = max(delay_frames, 4 * _REACH)
        self._block = block
        # What goes into the line of each side: the newest frames are at the end.
        self._lines = np.zeros((2, self._delay + _REACH), np.float32)
        self._quiet_frames = 0

    def process(self, send: FloatArray) -> FloatArray | None:
        """Takes a block of input, [block], and returns the repeats of the same time, [2, block]; None for silence."""
        if np.any(send):
            self._quiet_frames = 0
        elif self._quiet_frames > self._delay and float(np.max(np.abs(self._lines))) < _SILENCE:
            return None
        self._quiet_frames += self._block
        out = np.empty((2, self._block), np.float32)
        step = self._delay - _REACH
        for start in range(0, self._block, step):
            self._advance(send[start : start + step], out[:, start : start + step])
        return out

    def _advance(self, send: FloatArray, out: FloatArray) -> None:
        """The next frames, of which there are so few that none depends on another."""
        count = len(send)
        heard = np.zeros((2, count), np.float32)
        for tap, weight in enumerate(_TAPER):
            heard += weight * self._lines[:, tap : tap + count]
        out[0], out[1] = heard[0], _RIGHT_LEVEL * heard[1]
        fresh = np.stack([send + np.float32(_FEEDBACK) * heard[1], heard[0]])
        self._lines = np.concatenate([self._lines[:, count:], fresh], axis=1)
