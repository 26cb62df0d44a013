"""What samples can be sent to while they arrive: the sound card, or another program."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class PcmFormat(NamedTuple):
    """The format of interleaved little-endian float32 samples."""

    sample_rate_hz: int
    channels: int
    frames: int
    """How many will come; 0 if that is not known."""

    @property
    def frame_bytes(self) -> int:
        """The size of one sample of each channel."""
        return 4 * self.channels


class AudioSink(Protocol):
    """Receives samples. It can be opened again after `finish`, for the next generation."""

    async def open(self, pcm_format: PcmFormat) -> None:
        """Prepares for samples of this format. Raises CommandError if that is not possible."""

    async def write(self, pcm: bytes) -> None:
        """Takes whole frames. Waits until there is room for them."""

    async def finish(self) -> None:
        """Waits until all samples have been heard or read."""

    def stop(self) -> None:
        """Drops what has not been heard or read yet, at once."""
