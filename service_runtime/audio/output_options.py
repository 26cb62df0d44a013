"""The options for a finished file: its format, bit rate, sample rate, channels, loudness and publication tags."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from dgx_music.errors import InvalidArgument
from dgx_music.limits import (
    MAX_CHANNELS,
    MAX_PUBLICATION_CHARACTERS,
    MAX_QUALITY,
    MAX_SAMPLE_RATE_HZ,
    MIN_CEILING_DBTP,
    MIN_SAMPLE_RATE_HZ,
    MIN_TARGET_LUFS,
)
from service_runtime.audio.bit_rates import aac_bit_rates, mp3_bit_rates, opus_bit_rates, vorbis_bit_rates


class FileFormat(StrEnum):
    """Container and encoding of a file. The first format of a container is its default."""

    WAV_PCM_24 = "wav_pcm_24"
    WAV_PCM_16 = "wav_pcm_16"
    WAV_PCM_32 = "wav_pcm_32"
    WAV_FLOAT = "wav_float"
    FLAC_24 = "flac_24"
    FLAC_16 = "flac_16"
    MP3 = "mp3"
    OGG_VORBIS = "ogg_vorbis"
    OGG_OPUS = "ogg_opus"
    AIFF_PCM_24 = "aiff_pcm_24"
    AIFF_PCM_16 = "aiff_pcm_16"
    AIFF_PCM_32 = "aiff_pcm_32"
    AIFF_FLOAT = "aiff_float"
    CAF_PCM_24 = "caf_pcm_24"
    CAF_PCM_16 = "caf_pcm_16"
    CAF_PCM_32 = "caf_pcm_32"
    CAF_FLOAT = "caf_float"
    W64_PCM_24 = "w64_pcm_24"
    W64_PCM_16 = "w64_pcm_16"
    W64_PCM_32 = "w64_pcm_32"
    W64_FLOAT = "w64_float"
    M4A_AAC = "m4a_aac"


class LoudnessProfile(StrEnum):
    """The use of a file, which determines its loudness target."""

    STREAMING = "streaming"
    DEFAULT = "default"
    BROADCAST = "broadcast"
    NONE = "none"


MPEG_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
SAMPLE_RATES_HZ = {
    FileFormat.MP3: MPEG_RATES_HZ,
    FileFormat.OGG_OPUS: (8_000, 12_000, 16_000, 24_000, 48_000),
    FileFormat.M4A_AAC: (*MPEG_RATES_HZ, 64_000, 88_200, 96_000),
}
"""Supported sample rates of the formats that do not support all, in ascending order."""
BIT_RATES_KBPS = {
    FileFormat.MP3: mp3_bit_rates,
    FileFormat.OGG_VORBIS: vorbis_bit_rates,
    FileFormat.OGG_OPUS: opus_bit_rates,
    FileFormat.M4A_AAC: aac_bit_rates,
}
"""Lossy format → its bit rates for a sample rate and a channel count."""
QUALITY_FORMATS = (FileFormat.MP3, FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS)
"""Those whose encoder can be asked for a quality instead of a bit rate."""
AIFF_SAMPLE_BYTES = {
    FileFormat.AIFF_PCM_16: 2,
    FileFormat.AIFF_PCM_24: 3,
    FileFormat.AIFF_PCM_32: 4,
    FileFormat.AIFF_FLOAT: 4,
}
MAX_AIFF_SAMPLES_BYTES = 2**32 - 2**24
"""The sizes in an AIFF file have 32 bits; this leaves 16 MiB for its tags."""


@dataclass(frozen=True)
class PublicationTags:
    """Title, artist and album with which a file is published. The server chooses those that are empty."""

    title: str = ""
    artist: str = ""
    album: str = ""

    def check(self, field: str) -> None:
        """Raises InvalidArgument for the first text that is too long, named under `field`."""
        for name, text in vars(self).items():
            check_tag_text(f"{field}.{name}", text)

    def or_else(self, other: PublicationTags) -> PublicationTags:
        """Returns these tags, with those of `other` where they are empty."""
        return PublicationTags(**{name: text or getattr(other, name) for name, text in vars(self).items()})


NO_PUBLICATION = PublicationTags()


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
    bit_rate_kbps: int = 0
    """Of a lossy format, for all channels together; 0 for the format's default. Excludes `quality`."""
    quality: float | None = None
    """Of a lossy format at a variable bit rate, 0 to 10."""
    publication: PublicationTags = NO_PUBLICATION

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
        self._check_compression(field)
        self.publication.check(f"{field}.publication")

    def _check_compression(self, field: str) -> None:
        """Checks what does not depend on the source; `check_for_source` checks the rest."""
        if self.bit_rate_kbps and self.format not in BIT_RATES_KBPS:
            problem = f"must be 0 for {self.format.name}, which is lossless, not {self.bit_rate_kbps}"
            raise InvalidArgument(f"{field}.bit_rate_kbps", f"{problem}; only {_list(BIT_RATES_KBPS)} have a bit rate")
        if self.bit_rate_kbps < 0:
            raise InvalidArgument(f"{field}.bit_rate_kbps", f"must be 0 or more, not {self.bit_rate_kbps}")
        if self.quality is None:
            return
        if self.format not in QUALITY_FORMATS:
            problem = f"must be left out for {self.format.name}; only {_list(QUALITY_FORMATS)} have a quality"
            raise InvalidArgument(f"{field}.quality", problem)
        if self.bit_rate_kbps:
            raise InvalidArgument(f"{field}.quality", "must be left out with a bit rate; use one of the two")
        if not 0 <= self.quality <= MAX_QUALITY:
            raise InvalidArgument(f"{field}.quality", f"must be 0 to {MAX_QUALITY}, not {self.quality:g}")

    def check_for_source(self, field: str, sample_rate_hz: int, channels: int, seconds: float) -> None:
        """Checks what depends on the source: the bit rate, and whether the file can be as long. Raises InvalidArgument,
        named under `field`.

        `seconds` may be 0 if the length is not known yet.
        """
        rate, channels = self.resolve_for_source(sample_rate_hz, channels)
        check_aiff_size(f"{field}.format", self.format, round(seconds * rate), channels)
        valid = BIT_RATES_KBPS[self.format](rate, channels) if self.bit_rate_kbps else ()
        if self.bit_rate_kbps and self.bit_rate_kbps not in valid:
            target = f"{self.format.name} with {rate} Hz and {channels} {'channel' if channels == 1 else 'channels'}"
            if valid:
                problem = f"must be {_describe(valid)} for {target}, not {self.bit_rate_kbps}"
            else:
                problem = f"must be 0 for {target}, which has no bit rates; use quality or a lower sample rate"
            raise InvalidArgument(f"{field}.bit_rate_kbps", problem)

    def resolve_for_source(self, sample_rate_hz: int, channels: int) -> tuple[int, int]:
        """Returns the file's sample rate in Hz and channel count for a source with the given ones.

        If the format does not support the sample rate, it is the next higher one that it supports, or else its highest.
        """
        requested = self.sample_rate_hz or sample_rate_hz
        rates = SAMPLE_RATES_HZ.get(self.format, (requested,))
        return min((rate for rate in rates if rate >= requested), default=rates[-1]), self.channels or channels

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults, as JSON types."""
        default = asdict(OutputOptions())
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> Self:
        """Returns the options that `to_dict` was called on."""
        profile = options.get("profile")
        return cls(
            **{
                **options,
                "format": FileFormat(options.get("format", FileFormat.WAV_PCM_24)),
                "profile": None if profile is None else LoudnessProfile(profile),
                "publication": PublicationTags(**options.get("publication", {})),
            }
        )


def check_tag_text(field: str, text: str) -> None:
    """Raises InvalidArgument if the text is too long for a tag."""
    if len(text) > MAX_PUBLICATION_CHARACTERS:
        raise InvalidArgument(field, f"must have at most {MAX_PUBLICATION_CHARACTERS} characters, not {len(text)}")


def check_aiff_size(field: str, file_format: FileFormat, frames: int, channels: int) -> None:
    """Raises InvalidArgument if the format is AIFF and the samples do not fit into one file."""
    size = frames * channels * AIFF_SAMPLE_BYTES.get(file_format, 0)
    if size > MAX_AIFF_SAMPLES_BYTES:
        problem = (
            f"{file_format.name} holds less than 4 GiB of samples, not {size / 2**30:.1f} GiB; use CAF, W64 or WAV"
        )
        raise InvalidArgument(field, problem)


def _list(formats: Iterable[FileFormat]) -> str:
    return ", ".join(file_format.name for file_format in formats)


def _describe(bit_rates: Sequence[int]) -> str:
    """Returns for example "32, 40 or 48 kbit/s" or "12 to 512 kbit/s"."""
    if isinstance(bit_rates, range):
        return f"{bit_rates[0]} to {bit_rates[-1]} kbit/s"
    return f"{', '.join(map(str, bit_rates[:-1]))} or {bit_rates[-1]} kbit/s"
