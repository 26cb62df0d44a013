"""What a finished file is to be: the options that a caller gives, and what each format can have."""

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
    """What a file is."""

    WAV_PCM_24 = "wav_pcm_24"
    WAV_PCM_16 = "wav_pcm_16"
    WAV_FLOAT = "wav_float"
    FLAC_24 = "flac_24"
    FLAC_16 = "flac_16"
    MP3 = "mp3"
    OGG_VORBIS = "ogg_vorbis"
    OGG_OPUS = "ogg_opus"


class LoudnessProfile(StrEnum):
    """What a file is for, as far as its loudness goes."""

    STREAMING = "streaming"
    DEFAULT = "default"
    BROADCAST = "broadcast"
    NONE = "none"


SAMPLE_RATES_HZ = {
    FileFormat.MP3: (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    FileFormat.OGG_OPUS: (8_000, 12_000, 16_000, 24_000, 48_000),
}
"""Of the formats that can't have any."""


@dataclass(frozen=True)
class OutputOptions:
    """What is asked for. `check` says whether there is such a thing."""

    format: FileFormat = FileFormat.WAV_PCM_24
    sample_rate_hz: int = 0
    """0: as made."""
    channels: int = 0
    """0: as made."""
    profile: LoudnessProfile | None = None
    """Not beside `target_lufs`."""
    target_lufs: float | None = None
    ceiling_dbtp: float | None = None
    tag_prompt: bool = False
    """Write the prompt into the file's tags."""

    def check(self, field: str) -> None:
        """Raises InvalidArgument for the first option, named under `field`, that can't be."""
        rate, rates = self.sample_rate_hz, SAMPLE_RATES_HZ.get(self.format)
        if rate and not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
            problem = f"must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz, or 0 as made, not {rate}"
            raise InvalidArgument(f"{field}.sample_rate_hz", problem)
        if rate and rates is not None and rate not in rates:
            listed = ", ".join(map(str, rates))
            problem = f"{self.format.name} can't have {rate} Hz: take one of {listed}, or 0 for what fits the audio"
            raise InvalidArgument(f"{field}.sample_rate_hz", problem)
        if not 0 <= self.channels <= MAX_CHANNELS:
            raise InvalidArgument(f"{field}.channels", f"must be 1 or 2, or 0 as made, not {self.channels}")
        if self.target_lufs is not None and not MIN_TARGET_LUFS <= self.target_lufs <= 0:
            problem = f"must be {MIN_TARGET_LUFS:g} to 0 LUFS, not {self.target_lufs:g}; to leave the level, take"
            raise InvalidArgument(f"{field}.target_lufs", f"{problem} the profile LOUDNESS_PROFILE_NONE")
        if self.ceiling_dbtp is not None and not MIN_CEILING_DBTP <= self.ceiling_dbtp <= 0:
            problem = f"must be {MIN_CEILING_DBTP:g} to 0 dBTP, not {self.ceiling_dbtp:g}"
            raise InvalidArgument(f"{field}.ceiling_dbtp", problem)

    def resolve_for_source(self, sample_rate_hz: int, channels: int) -> tuple[int, int]:
        """The sample rate in Hz and the channel count that audio of the given ones becomes."""
        wanted = self.sample_rate_hz or sample_rate_hz
        rates = SAMPLE_RATES_HZ.get(self.format, (wanted,))
        return min((rate for rate in rates if rate >= wanted), default=rates[-1]), self.channels or channels

    def to_dict(self) -> dict[str, Any]:
        """The options that differ from the default, as JSON's types."""
        default = vars(OutputOptions())
        return {name: value for name, value in vars(self).items() if value != default[name]}

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Self:
        """What `to_dict` gave."""
        profile = kept.get("profile")
        return cls(
            **{
                **kept,
                "format": FileFormat(kept.get("format", FileFormat.WAV_PCM_24)),
                "profile": None if profile is None else LoudnessProfile(profile),
            }
        )
