"""Translating the output options to those of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile, OutputOptions
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.commands.generation.render import PROFILES, build_output_options
from gateway.cli.session.command_errors import CommandError


def test_no_options_leave_the_server_default() -> None:
    assert build_output_options(None, 0, 0, "", None) is None
    assert build_output_options(None, 0, 0, "", None, Path("-")) is None


def test_every_format_and_profile_of_contract_has_a_name() -> None:
    assert {f"FILE_FORMAT_{one.name}" for one in Format} == set(FileFormat.keys()[1:])
    for one in Format:
        assert build_output_options(one, 0, 0, "", None) == OutputOptions(
            format=FileFormat.Value(f"FILE_FORMAT_{one.name}")
        )
    assert [f"LOUDNESS_PROFILE_{name.upper()}" for name in PROFILES] == LoudnessProfile.keys()[1:]


@pytest.mark.parametrize(
    ("loudness", "expected"),
    [
        ("streaming", OutputOptions(profile="LOUDNESS_PROFILE_STREAMING", ceiling_dbtp=0.0)),
        ("none", OutputOptions(profile="LOUDNESS_PROFILE_NONE", ceiling_dbtp=0.0)),
        ("-14", OutputOptions(target_lufs=-14.0, ceiling_dbtp=0.0)),
    ],
)
def test_loudness_is_profile_or_number(loudness: str, expected: OutputOptions) -> None:
    assert build_output_options(None, 0, 0, loudness, 0.0) == expected


def test_tag_prompt_is_off_by_default() -> None:
    assert build_output_options(None, 0, 0, "", None, tag_prompt=True) == OutputOptions(tag_prompt=True)


def test_invalid_loudness_is_rejected() -> None:
    with pytest.raises(
        CommandError, match="'loud' is not a valid loudness; use streaming, default, broadcast, none or a number"
    ):
        build_output_options(None, 0, 0, "loud", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.wav", "WAV_PCM_24"),
        ("a.bwf", "WAV_PCM_24"),
        ("a.FLAC", "FLAC_24"),
        ("a.mp3", "MP3"),
        ("a.ogg", "OGG_VORBIS"),
        ("a.opus", "OGG_OPUS"),
        ("a.b.aif", "AIFF_PCM_24"),
        ("a.aifc", "AIFF_FLOAT"),
        ("a.caf", "CAF_PCM_24"),
        ("a.w64", "W64_PCM_24"),
        ("a.m4a", "M4A_AAC"),
    ],
)
def test_ending_of_output_decides_format(name: str, expected: str) -> None:
    assert build_output_options(None, 0, 0, "", None, Path(name)) == OutputOptions(format=f"FILE_FORMAT_{expected}")


@pytest.mark.parametrize(
    ("format_", "name"),
    [
        (Format.WAV_PCM_16, "a.wav"),
        (Format.AIFF_FLOAT, "a.aiff"),
        (Format.OGG_OPUS, "a.oga"),
        (Format.FLAC_24, "beat"),
        (Format.MP3, "-"),
        (Format.MP3, "folder.wav/beat"),
    ],
)
def test_format_option_that_the_extension_names_too(format_: Format, name: str) -> None:
    assert build_output_options(format_, 0, 0, "", None, Path(name)) == OutputOptions(
        format=f"FILE_FORMAT_{format_.name}"
    )


@pytest.mark.parametrize(
    ("format_", "name", "problem"),
    [
        (None, "a.xyz", r"\.xyz names no format that can be written; use \.wav, .*\.mp4"),
        (Format.MP3, "a.xyz", r"\.xyz names no format"),
        (None, "beat", r"beat has no extension that names its format; add one of \.wav, .*or use --format"),
        (
            Format.MP3,
            "a.wav",
            r"a\.wav does not name a file of --format mp3; use the extension \.mp3, or --format wav$",
        ),
        (Format.AIFF_PCM_24, "a.aifc", r".*use the extension \.aiff, or --format aiff-float$"),
        (Format.OGG_VORBIS, "a.opus", r".*use the extension \.ogg, or --format opus$"),
    ],
)
def test_output_of_another_format_is_rejected(format_: Format | None, name: str, problem: str) -> None:
    with pytest.raises(CommandError, match=f"^--output: {problem}") as raised:
        build_output_options(format_, 0, 0, "", None, Path(name))
    assert raised.value.exit_status == 2


def test_bit_rate_and_quality_are_passed_on() -> None:
    assert build_output_options(None, 0, 0, "", None, bit_rate_kbps=96) == OutputOptions(bit_rate_kbps=96)
    assert build_output_options(None, 0, 0, "", None, quality=0.0) == OutputOptions(quality=0.0)
