"""Samples at another sample rate or channel count, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from export_service.dsp.loudness import Samples

QUALITY = "HQ"
"""soxr's name for 20 bits of precision."""


class Converter:
    """Samples in at one rate and channel count, out at another, in pieces of any size."""

    def __init__(self, in_hz: int, in_channels: int, out_hz: int, out_channels: int) -> None:
        self._in_hz, self._out_hz = in_hz, out_hz
        self._out_channels = out_channels
        self._channels = min(in_channels, out_channels)
        """Between the two: no channel is resampled that is not heard, nor one twice."""
        self._resampler = None if in_hz == out_hz else _resampler(in_hz, out_hz, self._channels)
        self._in_frames = 0
        self.out_frames = 0
        """Given out so far."""

    def feed(self, samples: Samples) -> Samples:
        """Takes in the next frames, [frames, channels]; gives those that are ready."""
        mixed = with_channels(samples, self._channels)
        self._in_frames += len(samples)
        return self._out(mixed if self._resampler is None else self._resampler.resample_chunk(mixed))

    def finish(self) -> Samples:
        """The last frames: in all as many as `converted_frames` says. Nothing may be fed after."""
        due = converted_frames(self._in_frames, self._in_hz, self._out_hz) - self.out_frames
        silence = np.zeros((-(-self._in_hz // self._out_hz) + 1, self._channels), dtype=np.float32)
        # Left alone, soxr may end a frame earlier: it rounds in floating point. Silence is what it ends with anyway.
        rest = silence if self._resampler is None else self._resampler.resample_chunk(silence, last=True)
        return self._out(rest[:due])

    def _out(self, samples: Samples) -> Samples:
        self.out_frames += len(samples)
        return with_channels(samples, self._out_channels)


def _resampler(in_hz: int, out_hz: int, channels: int) -> Any:
    import soxr

    return soxr.ResampleStream(in_hz, out_hz, channels, dtype="float32", quality=QUALITY)


def converted_frames(frames: int, in_hz: int, out_hz: int) -> int:
    """How many frames they become: frames × out_hz / in_hz, rounded half up."""
    return (2 * frames * out_hz + in_hz) // (2 * in_hz)


def with_channels(samples: Samples, channels: int) -> Samples:
    """The mean of both channels, or the one channel on both: [frames, channels]."""
    if samples.shape[1] == channels:
        return samples
    return samples.mean(axis=1, keepdims=True) if channels == 1 else np.repeat(samples, channels, axis=1)
