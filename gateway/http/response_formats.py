"""The formats of a response: OpenAI's names, and ElevenLabs' names with sample rate and bit rate."""

from __future__ import annotations

from dataclasses import dataclass

from dgx_music.client.generation_options import FileOptions
from dgx_music.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What the body of a response is. What is None is as the model or the format's default has it."""

    name: str
    """wav, mp3, flac, opus, aac or pcm."""
    sample_rate: int | None = None
    """Hz."""
    channels: int | None = None
    bit_rate: int | None = None
    """kbit/s."""

    @property
    def media_type(self) -> str:
        """The Content-Type, for pcm without the parameters that describe it."""
        return MEDIA_TYPES[self.name]

    @property
    def is_pcm(self) -> bool:
        """Whether it is samples without a file around them."""
        return self.name == "pcm"

    def file_options(self) -> FileOptions:
        """Returns what the file of the generation has to be. PCM is taken from any file."""
        if self.is_pcm:
            return FileOptions()
        return FileOptions(
            format=FILE_FORMATS.get(self.name, self.name),
            sample_rate=self.sample_rate,
            channels=self.channels,
            bit_rate=self.bit_rate,
        )


MEDIA_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/mp4",
    "pcm": "audio/pcm",
}
FILE_FORMATS = {"wav": "wav-16", "aac": "m4a"}
"""Format of a response → the client's name of the file format, where that differs. Many players know WAV with 16 bits
only."""

MAX_DIGITS = 9
"""Of a sample rate or a bit rate. Python refuses to convert thousands."""

SPEECH_PCM = ResponseFormat("pcm", sample_rate=24_000, channels=1)
"""What OpenAI's clients expect of pcm: 16 bits, little-endian."""


def named_format(name: str) -> ResponseFormat:
    """Returns the format with OpenAI's name."""
    return SPEECH_PCM if name == "pcm" else ResponseFormat(name)


def parse_output_format(text: str, pcm_channels: int | None) -> ResponseFormat:
    """Parses ElevenLabs' `output_format`: codec, sample rate in Hz and, for some, bit rate in kbit/s, as in
    "mp3_44100_128" or "pcm_24000". Raises InvalidArgument."""
    if text == "auto":
        return ResponseFormat("mp3")
    name, *numbers = text.split("_")
    if name not in MEDIA_TYPES or len(numbers) not in (1, 2) or not all(map(_is_number, numbers)):
        raise InvalidArgument(
            "output_format",
            f'must be like "mp3_44100_128" with one of {", ".join(MEDIA_TYPES)}, or "auto", not {text[:60]!r}',
        )
    rate, bit_rate = (*map(int, numbers), None)[:2]
    return ResponseFormat(name, rate, pcm_channels if name == "pcm" else None, bit_rate)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
