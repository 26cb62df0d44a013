"""Translating the output options to those of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile, OutputOptions
from gateway.cli.commands.output_flags import Format
from gateway.cli.commands.render import PROFILES, build_output_options
from gateway.cli.session.command_errors import CommandError


def test_no_options_leave_the_server_default() -> None:
    assert build_output_options(None, 0, 0, "", None) is None
    assert build_output_options(None, 0, 0, "", None, Path("beat.wav")) is None


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
    ("name", "expected"), [("a.FLAC", "FLAC_24"), ("a.mp3", "MP3"), ("a.ogg", "OGG_VORBIS"), ("a.opus", "OGG_OPUS")]
)
def test_format_option_overrides_extension(name: str, expected: str) -> None:
    assert build_output_options(None, 0, 0, "", None, Path(name)) == OutputOptions(format=f"FILE_FORMAT_{expected}")
    assert build_output_options(Format.FLAC_16, 0, 0, "", None, Path(name)) == OutputOptions(
        format="FILE_FORMAT_FLAC_16"
    )
