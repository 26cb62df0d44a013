"""What every decoder gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from export_service.decoding.surround import Layout
from export_service.dsp.arrays import Samples

NOT_DECODABLE = "its header is damaged, or its encoding is not supported"

EXTRACT_HINT = "extract the one to use, for example with `ffmpeg -i INPUT -map 0:a:0 OUTPUT.flac`"


class DecodeError(Exception):
    """The file cannot be decoded; the message completes a sentence that begins with "it", e.g. "it is damaged"."""


class UnsupportedEncodingError(DecodeError):
    """This decoder does not know the encoding; another one may."""


@dataclass(frozen=True)
class DecodedAudio:
    """An audio file while it is decoded."""

    description: str
    """Encoding and container, e.g. "AIFF, 24-bit PCM"."""
    sample_rate_hz: int
    channels: int
    layout: Layout | None
    """The loudspeakers that the channels are for, in their order; None if the file does not say."""
    frames: int | None
    """How many frames the file says that it has; None if it does not say so exactly."""
    tolerance_frames: int
    """So many fewer may be decoded from a complete file."""
    blocks: Iterator[Samples]
    """The samples as they are decoded: [frames, channels] each. Raises DecodeError, and OSError if the disk fails."""
