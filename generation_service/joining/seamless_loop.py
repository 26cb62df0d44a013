"""Cuts music so that its end leads into its start."""

from __future__ import annotations

import numpy as np

from generation_service.joining.crossfade import crossfade
from generation_service.models.base import FloatArray
from service_runtime.generated_length import LOOP_SEARCH_SECONDS

JOINT_SECONDS = 0.08
"""The crossfade at the end of the loop."""


class SeamlessLoop:
    """Takes a loop out of music that starts one bar before it.

    The last frames of the loop pass into those before its start, so that what follows the end is the start:

        music   |....bar....|<-- loop -------------------->|
                        ^^^^                           ^^^^
                          '--- crossfaded into the end ---'
    """

    def __init__(self, bar_frames: int, loop_frames: int, sample_rate_hz: int) -> None:
        """`bar_frames` come before the loop and are left out."""
        self._bar_frames = bar_frames
        self._loop_frames = loop_frames
        self._search_frames = round(LOOP_SEARCH_SECONDS * sample_rate_hz)
        self._joint_frames = min(round(JOINT_SECONDS * sample_rate_hz), bar_frames, loop_frames // 2)
        self._before: FloatArray | None = None
        """The frames before the start, which end the loop; None until the start is found."""
        self._buffer: FloatArray | None = None
        self._returned = 0

    @property
    def needed_frames(self) -> int:
        """How much music `feed` must get in all."""
        return self._bar_frames + self._search_frames + self._loop_frames

    def feed(self, samples: FloatArray) -> FloatArray:
        """Adds music, [n, channels]. Returns what of the loop is ready; in all, exactly `loop_frames`."""
        buffer = samples if self._buffer is None else np.concatenate([self._buffer, samples])
        if self._before is None:
            if len(buffer) < self._bar_frames + self._search_frames + 1:
                self._buffer = buffer
                return buffer[:0]
            start = self._bar_frames + _zero_crossing(
                buffer[self._bar_frames - 1 : self._bar_frames + self._search_frames + 1]
            )
            self._before = buffer[start - self._joint_frames : start]
            buffer = buffer[start:]
        body = self._loop_frames - self._joint_frames
        ready = buffer[: max(0, body - self._returned)]
        self._buffer = buffer[len(ready) :]
        self._returned += len(ready)
        if self._returned == body and len(self._buffer) >= self._joint_frames:
            self._returned = self._loop_frames
            ready = np.concatenate([ready, crossfade(self._buffer[: self._joint_frames], self._before)])
        return ready

    @property
    def is_complete(self) -> bool:
        """Whether the whole loop has been returned."""
        return self._returned == self._loop_frames


def _zero_crossing(samples: FloatArray) -> int:
    """Returns how far after the second of the samples the mean of the channels first crosses zero, or else where it is
    closest to zero. [n, channels], n >= 2."""
    mean = samples.mean(axis=1)
    crossings = np.flatnonzero((mean[:-1] < 0) != (mean[1:] < 0))
    return int(crossings[0]) if len(crossings) else int(np.argmin(np.abs(mean[1:])))
