"""What is typed of a file's form, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.audio.v1.audio_pb2 import FileFormat, LoudnessProfile, OutputOptions
from gateway.cli.commands.output_flags import Format
from gateway.cli.commands.render import PROFILES, options_of
from gateway.cli.session.command_errors import CommandError


def test_nothing_typed_is_the_servers_default() -> None:
    assert options_of(None, 0, 0, "", None) is None
    assert options_of(None, 0, 0, "", None, Path("beat.wav")) is None


def test_every_format_and_profile_can_be_typed() -> None:
    assert {f"FILE_FORMAT_{one.name}" for one in Format} == set(FileFormat.keys()[1:])
    for one in Format:
        assert options_of(one, 0, 0, "", None) == OutputOptions(format=FileFormat.Value(f"FILE_FORMAT_{one.name}"))
    assert [f"LOUDNESS_PROFILE_{name.upper()}" for name in PROFILES] == LoudnessProfile.keys()[1:]


@pytest.mark.parametrize(
    ("loudness", "expected"),
    [
        ("streaming", OutputOptions(profile="LOUDNESS_PROFILE_STREAMING", ceiling_dbtp=0.0)),
        ("none", OutputOptions(profile="LOUDNESS_PROFILE_NONE", ceiling_dbtp=0.0)),
        ("-14", OutputOptions(target_lufs=-14.0, ceiling_dbtp=0.0)),
    ],
)
def test_loudness_is_a_profile_or_a_number(loudness: str, expected: OutputOptions) -> None:
    assert options_of(None, 0, 0, loudness, 0.0) == expected


def test_the_prompt_goes_into_the_tags_only_where_asked() -> None:
    assert options_of(None, 0, 0, "", None, tag_prompt=True) == OutputOptions(tag_prompt=True)


def test_a_loudness_that_is_neither() -> None:
    with pytest.raises(CommandError, match="streaming, default, broadcast, none nor a number"):
        options_of(None, 0, 0, "loud", None)


@pytest.mark.parametrize(
    ("name", "expected"), [("a.FLAC", "FLAC_24"), ("a.mp3", "MP3"), ("a.ogg", "OGG_VORBIS"), ("a.opus", "OGG_OPUS")]
)
def test_the_format_of_the_files_name_unless_another_is_typed(name: str, expected: str) -> None:
    assert options_of(None, 0, 0, "", None, Path(name)) == OutputOptions(format=f"FILE_FORMAT_{expected}")
    assert options_of(Format.FLAC_16, 0, 0, "", None, Path(name)) == OutputOptions(format="FILE_FORMAT_FLAC_16")
