"""What every decoder returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from export_service.decoding.surround import ChannelLayout
from export_service.dsp.arrays import Samples

NOT_DECODABLE = "its header is damaged, or its encoding is not supported"

EXTRACT_HINT = "extract the one to use, for example with `ffmpeg -i INPUT -map 0:a:0 OUTPUT.flac`"


class DecodeError(Exception):
    """The file can't be decoded. The message is a clause about the file, e.g. "it is empty"."""


class UnsupportedEncodingError(DecodeError):
    """This decoder does not know the encoding; another one may."""


@dataclass(frozen=True)
class DecodedAudio:
    """An audio file while it is decoded."""

    description: str
    """Encoding and container, e.g. "AIFF, 24-bit PCM"."""
    sample_rate_hz: int
    channels: int
    layout: ChannelLayout | None
    """The loudspeakers that the channels are for, in their order; None if the file does not say."""
    frames: int | None
    """How many frames the file says that it has; None if it does not give the exact number."""
    tolerance_frames: int
    """By how many frames a complete file may differ from that."""
    blocks: Iterator[Samples]
    """The decoded samples: [frames, channels] each. Iterating raises DecodeError, and OSError if the disk fails."""
