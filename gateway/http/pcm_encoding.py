"""Samples as programs expect them in a response: 16-bit PCM at a rate of their choice, with or without a WAV header."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import soxr

if TYPE_CHECKING:
    from dgx_music.client.audio_listening import Samples

BYTES_PER_SAMPLE = 2
FULL_SCALE = 32_767
PCM_FORMAT = 1
"""WAVE_FORMAT_PCM."""
UNKNOWN_SIZE = 0xFFFF_FFFF
"""Stands for a size that is not known in advance, in the header of a stream."""
RIFF_HEADER, CHUNK_HEADER, FORMAT = struct.Struct("<4sI4s"), struct.Struct("<4sI"), struct.Struct("<HHIIHH")


class PcmEncoder:
    """Converts consecutive samples to 16-bit PCM, resampled and mixed down if that is asked for."""

    def __init__(
        self, source_rate: int, source_channels: int, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        """Rates are in Hz; None keeps what the source has."""
        self.sample_rate, self.channels = sample_rate or source_rate, channels or source_channels
        self._resampler = (
            None
            if self.sample_rate == source_rate
            else soxr.ResampleStream(source_rate, self.sample_rate, self.channels, dtype="float32")
        )

    def encode(self, samples: Samples) -> bytes:
        """Takes float32 [frames, channels], and returns what of it is ready. Samples over full scale are clipped."""
        if samples.shape[1] > self.channels:
            samples = samples.mean(axis=1, keepdims=True)
        elif samples.shape[1] < self.channels:
            samples = samples.repeat(self.channels, axis=1)
        return self._quantize(samples, is_last=False)

    def finish(self) -> bytes:
        """Returns the rest."""
        return self._quantize(np.empty((0, self.channels), np.float32), is_last=True)

    def _quantize(self, samples: Samples, *, is_last: bool) -> bytes:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        scaled = np.rint(np.clip(samples, -1.0, 1.0) * FULL_SCALE)
        return scaled.astype("<i2").tobytes()


def wav_header(sample_rate: int, channels: int, frames: int | None, comment: str) -> bytes:
    """Returns what precedes the samples of a WAV stream: the format, the comment as a tag, and the size of the samples.

    `frames` is None if the length is not known; players then read to the end.
    """
    frame_bytes = channels * BYTES_PER_SAMPLE
    data_bytes = UNKNOWN_SIZE if frames is None else frames * frame_bytes
    text = comment.encode() + b"\0"
    info = b"INFO" + _chunk(b"ICMT", text)
    layout = FORMAT.pack(
        PCM_FORMAT, channels, sample_rate, sample_rate * frame_bytes, frame_bytes, 8 * BYTES_PER_SAMPLE
    )
    chunks = _chunk(b"fmt ", layout) + _chunk(b"LIST", info) + CHUNK_HEADER.pack(b"data", data_bytes)
    size = UNKNOWN_SIZE if frames is None else 4 + len(chunks) + data_bytes
    return RIFF_HEADER.pack(b"RIFF", size, b"WAVE") + chunks


def _chunk(name: bytes, content: bytes) -> bytes:
    return CHUNK_HEADER.pack(name, len(content)) + content + bytes(len(content) % 2)
