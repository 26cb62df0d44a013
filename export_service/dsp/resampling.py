"""Converts sample rate and channel count, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from export_service.dsp.arrays import Samples

QUALITY = "HQ"
"""soxr's name for 20-bit precision."""


class Resampler:
    """Converts a signal to another sample rate and channel count, in pieces of any size."""

    def __init__(self, in_hz: int, in_channels: int, out_hz: int, out_channels: int) -> None:
        self._in_hz, self._out_hz = in_hz, out_hz
        self._out_channels = out_channels
        self._channels = min(in_channels, out_channels)
        """The channel count while resampling: down-mixing happens before and up-mixing after, which saves work."""
        self._resampler = None if in_hz == out_hz else _create_soxr_stream(in_hz, out_hz, self._channels)
        self._in_frames = 0
        self.out_frames = 0
        """The number of frames returned so far."""

    def feed(self, samples: Samples) -> Samples:
        """Adds the next frames [frames, channels]; returns the output frames that are ready."""
        mixed = mix_channels(samples, self._channels)
        self._in_frames += len(samples)
        return self._emit(mixed if self._resampler is None else self._resampler.resample_chunk(mixed))

    def finish(self) -> Samples:
        """Returns the last frames; the total is then `resampled_frame_count`. `feed` must not be called afterwards."""
        due = resampled_frame_count(self._in_frames, self._in_hz, self._out_hz) - self.out_frames
        silence = np.zeros((-(-self._in_hz // self._out_hz) + 1, self._channels), dtype=np.float32)
        # soxr rounds in floating point and may otherwise end one frame early. It pads with silence at the end anyway.
        tail = silence if self._resampler is None else self._resampler.resample_chunk(silence, last=True)
        return self._emit(tail[:due])

    def _emit(self, samples: Samples) -> Samples:
        self.out_frames += len(samples)
        return mix_channels(samples, self._out_channels)


def _create_soxr_stream(in_hz: int, out_hz: int, channels: int) -> Any:
    import soxr

    return soxr.ResampleStream(in_hz, out_hz, channels, dtype="float32", quality=QUALITY)


def resampled_frame_count(frames: int, in_hz: int, out_hz: int) -> int:
    """Returns the number of frames after resampling: frames × out_hz / in_hz, rounded half up."""
    return (2 * frames * out_hz + in_hz) // (2 * in_hz)


def mix_channels(samples: Samples, channels: int) -> Samples:
    """Returns [frames, channels]: the mean of two channels for mono, or the single channel on both for stereo."""
    if samples.shape[1] == channels:
        return samples
    return samples.mean(axis=1, keepdims=True) if channels == 1 else np.repeat(samples, channels, axis=1)
