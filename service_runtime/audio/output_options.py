"""The options for a finished file: its format, sample rate, channels and loudness."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from dgx_music.errors import InvalidArgument
from dgx_music.limits import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE_HZ,
    MIN_CEILING_DBTP,
    MIN_SAMPLE_RATE_HZ,
    MIN_TARGET_LUFS,
)


class FileFormat(StrEnum):
    """Container and encoding of a file."""

    WAV_PCM_24 = "wav_pcm_24"
    WAV_PCM_16 = "wav_pcm_16"
    WAV_FLOAT = "wav_float"
    FLAC_24 = "flac_24"
    FLAC_16 = "flac_16"
    MP3 = "mp3"
    OGG_VORBIS = "ogg_vorbis"
    OGG_OPUS = "ogg_opus"


class LoudnessProfile(StrEnum):
    """The use of a file, which determines its loudness target."""

    STREAMING = "streaming"
    DEFAULT = "default"
    BROADCAST = "broadcast"
    NONE = "none"


SAMPLE_RATES_HZ = {
    FileFormat.MP3: (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    FileFormat.OGG_OPUS: (8_000, 12_000, 16_000, 24_000, 48_000),
}
"""Supported sample rates of the formats that do not support all, in ascending order."""


@dataclass(frozen=True)
class PublicationTags:
    """What a publisher calls a piece of music; what is empty is left to the server."""

    title: str = ""
    artist: str = ""
    album: str = ""


@dataclass(frozen=True)
class OutputOptions:
    """The requested options; `check` validates them. See `OutputOptions` in audio.proto."""

    format: FileFormat = FileFormat.WAV_PCM_24
    sample_rate_hz: int = 0
    """0 keeps the source's sample rate."""
    channels: int = 0
    """1 or 2; 0 keeps the source's channels."""
    profile: LoudnessProfile | None = None
    """Excludes `target_lufs`. None if the caller left it to the default."""
    target_lufs: float | None = None
    """Integrated loudness in LUFS."""
    ceiling_dbtp: float | None = None
    """Maximum true peak in dBTP."""
    tag_prompt: bool = False
    """Whether to write the prompt into the file's tags."""
    publication: PublicationTags = PublicationTags()

    def check(self, field: str) -> None:
        """Raises InvalidArgument for the first invalid option, named under `field`."""
        rate, rates = self.sample_rate_hz, SAMPLE_RATES_HZ.get(self.format)
        if rate and not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
            problem = (
                f"must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz, or 0 to keep the source's rate, not {rate}"
            )
            raise InvalidArgument(f"{field}.sample_rate_hz", problem)
        if rate and rates is not None and rate not in rates:
            listed = ", ".join(map(str, rates))
            problem = (
                f"{self.format.name} does not support {rate} Hz; use one of {listed}, or 0 to choose automatically"
            )
            raise InvalidArgument(f"{field}.sample_rate_hz", problem)
        if not 0 <= self.channels <= MAX_CHANNELS:
            problem = f"must be 1 or 2, or 0 to keep the source's channels, not {self.channels}"
            raise InvalidArgument(f"{field}.channels", problem)
        if self.target_lufs is not None and not MIN_TARGET_LUFS <= self.target_lufs <= 0:
            problem = f"must be {MIN_TARGET_LUFS:g} to 0 LUFS, not {self.target_lufs:g}; to keep the level, use"
            raise InvalidArgument(f"{field}.target_lufs", f"{problem} the profile LOUDNESS_PROFILE_NONE")
        if self.ceiling_dbtp is not None and not MIN_CEILING_DBTP <= self.ceiling_dbtp <= 0:
            problem = f"must be {MIN_CEILING_DBTP:g} to 0 dBTP, not {self.ceiling_dbtp:g}"
            raise InvalidArgument(f"{field}.ceiling_dbtp", problem)

    def resolve_for_source(self, sample_rate_hz: int, channels: int) -> tuple[int, int]:
        """Returns the file's sample rate in Hz and channel count for a source with the given ones.

        If the format does not support the sample rate, it is the next higher one that it supports, or else its highest.
        """
        requested = self.sample_rate_hz or sample_rate_hz
        rates = SAMPLE_RATES_HZ.get(self.format, (requested,))
        return min((rate for rate in rates if rate >= requested), default=rates[-1]), self.channels or channels

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults, as JSON types."""
        default = vars(OutputOptions())
        return {name: value for name, value in vars(self).items() if value != default[name]}

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> Self:
        """Returns the options that `to_dict` was called on."""
        profile = options.get("profile")
        return cls(
            **{
                **options,
                "format": FileFormat(options.get("format", FileFormat.WAV_PCM_24)),
                "profile": None if profile is None else LoudnessProfile(profile),
            }
        )
