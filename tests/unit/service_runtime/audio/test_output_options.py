"""The options for a finished file."""

from __future__ import annotations

import json

import pytest

from dgx_music.errors import InvalidArgument
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions, PublicationTags


@pytest.mark.parametrize(
    ("options", "source", "expected"),
    [
        (OutputOptions(), (32_000, 2), (32_000, 2)),
        (OutputOptions(sample_rate_hz=44_100, channels=1), (32_000, 2), (44_100, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (32_000, 1), (48_000, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (16_000, 1), (16_000, 1)),
        (OutputOptions(FileFormat.OGG_OPUS), (96_000, 1), (48_000, 1)),
        (OutputOptions(FileFormat.MP3), (32_000, 2), (32_000, 2)),
        (OutputOptions(FileFormat.MP3), (12_345, 2), (16_000, 2)),
        (OutputOptions(FileFormat.FLAC_24), (192_000, 2), (192_000, 2)),
        (OutputOptions(FileFormat.M4A_AAC), (50_000, 2), (64_000, 2)),
    ],
)
def test_resolve_for_source(options: OutputOptions, source: tuple[int, int], expected: tuple[int, int]) -> None:
    assert options.resolve_for_source(*source) == expected


@pytest.mark.parametrize(
    "options",
    [
        OutputOptions(FileFormat.MP3, 44_100, 1, LoudnessProfile.NONE, None, 0.0),
        OutputOptions(FileFormat.WAV_FLOAT, 0, 2, None, -70.0, None, tag_prompt=True),
        OutputOptions(FileFormat.MP3, quality=0.0),
        OutputOptions(FileFormat.M4A_AAC, bit_rate_kbps=96, publication=PublicationTags("T", "A", "B")),
        OutputOptions(publication=PublicationTags(artist="A")),
    ],
)
def test_dict_round_trip(options: OutputOptions) -> None:
    assert OutputOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_dict_of_default_options_is_empty() -> None:
    assert OutputOptions().to_dict() == {}
    assert OutputOptions.from_dict({}) == OutputOptions()


def test_dict_of_an_earlier_version_is_read() -> None:
    stored = {"format": "mp3", "profile": "streaming", "tag_prompt": True}
    assert OutputOptions.from_dict(stored) == OutputOptions(
        FileFormat.MP3, profile=LoudnessProfile.STREAMING, tag_prompt=True
    )


@pytest.mark.parametrize(
    ("options", "field", "problem"),
    [
        (
            OutputOptions(FileFormat.FLAC_24, bit_rate_kbps=96),
            "bit_rate_kbps",
            "FLAC_24, which is lossless.*only MP3, OGG",
        ),
        (OutputOptions(FileFormat.MP3, bit_rate_kbps=-1), "bit_rate_kbps", "0 or more, not -1"),
        (OutputOptions(FileFormat.MP3, bit_rate_kbps=96, quality=5), "quality", "use one of the two"),
        (
            OutputOptions(FileFormat.M4A_AAC, quality=5),
            "quality",
            "left out for M4A_AAC; only MP3, OGG_VORBIS, OGG_OPUS",
        ),
        (OutputOptions(FileFormat.WAV_PCM_24, quality=0), "quality", "left out for WAV_PCM_24"),
        (OutputOptions(FileFormat.MP3, quality=10.5), "quality", "0 to 10, not 10.5"),
        (OutputOptions(FileFormat.MP3, quality=float("nan")), "quality", "0 to 10, not nan"),
        (OutputOptions(publication=PublicationTags(artist="x" * 201)), "publication.artist", "200 characters, not 201"),
    ],
)
def test_invalid_options_are_rejected(options: OutputOptions, field: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as raised:
        options.check("output")
    assert raised.value.field == f"output.{field}"


@pytest.mark.parametrize(
    ("file_format", "source", "valid", "invalid", "listed"),
    [
        (FileFormat.MP3, (44_100, 2), (32, 128, 320), (8, 100, 144, 321), "32, 40, 48, .* 256 or 320 kbit/s"),
        (FileFormat.MP3, (22_050, 1), (8, 144, 160), (12, 192), "8, 16, .* 144 or 160 kbit/s"),
        (FileFormat.MP3, (11_025, 2), (8, 64), (80,), "8, 16, .* 56 or 64 kbit/s"),
        (FileFormat.OGG_VORBIS, (48_000, 2), (64, 99, 500), (63, 501), "64 to 500 kbit/s"),
        (FileFormat.OGG_VORBIS, (8_000, 1), (14, 42), (13, 43), "14 to 42 kbit/s"),
        (FileFormat.OGG_VORBIS, (96_000, 2), (), (96,), "which has no bit rates; use quality"),
        (FileFormat.OGG_OPUS, (8_000, 1), (6, 256), (5, 257), "6 to 256 kbit/s"),
        (
            FileFormat.OGG_OPUS,
            (32_000, 2),
            (12, 512),
            (11,),
            "12 to 512 kbit/s for OGG_OPUS with 48000 Hz and 2 channels",
        ),
        (FileFormat.M4A_AAC, (44_100, 2), (32, 512), (31, 513), "32 to 512 kbit/s"),
        (FileFormat.M4A_AAC, (8_000, 1), (16, 48), (49,), "16 to 48 kbit/s for M4A_AAC with 8000 Hz and 1 channel,"),
    ],
)
def test_bit_rate_depends_on_format_and_source(
    file_format: FileFormat,
    source: tuple[int, int],
    valid: tuple[int, ...],
    invalid: tuple[int, ...],
    listed: str,
) -> None:
    for bit_rate in valid:
        OutputOptions(file_format, bit_rate_kbps=bit_rate).check_for_source("output", *source, 10)
    for bit_rate in invalid:
        with pytest.raises(InvalidArgument, match=listed) as raised:
            OutputOptions(file_format, bit_rate_kbps=bit_rate).check_for_source("output", *source, 10)
        assert raised.value.field == "output.bit_rate_kbps"


@pytest.mark.parametrize("file_format", [FileFormat.AIFF_PCM_32, FileFormat.AIFF_FLOAT])
def test_aiff_of_4_gib_is_rejected(file_format: FileFormat) -> None:
    options = OutputOptions(file_format, sample_rate_hz=192_000)
    options.check_for_source("output", 32_000, 2, 2700)
    with pytest.raises(InvalidArgument, match=f"{file_format.name} holds .* 5.1 GiB; use CAF, W64 or WAV") as raised:
        options.check_for_source("output", 32_000, 2, 3600)
    assert raised.value.field == "output.format"
    OutputOptions(FileFormat.CAF_FLOAT, sample_rate_hz=192_000).check_for_source("output", 32_000, 2, 3600)
