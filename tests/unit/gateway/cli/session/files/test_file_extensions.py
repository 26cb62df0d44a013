"""The formats that the extension of a file name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from export_service.formats.codecs import EXTENSIONS
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.files.file_extensions import EXTENSION_FORMATS, require_extension_of_file

ID = "123e4567-e89b-12d3-a456-426614174000"


def test_every_format_and_every_extension_of_the_library_is_named() -> None:
    assert {name for names in EXTENSION_FORMATS.values() for name in names} == set(Format.__members__)
    assert set(EXTENSIONS) <= set(EXTENSION_FORMATS)


@pytest.mark.parametrize(
    ("name", "file_name"),
    [("a.WAV", "x.wav"), ("a.aif", "x.aiff"), ("a.aif", "x.aifc"), ("a.oga", "x.opus"), ("a", "x.mp3"), ("-", "x.mp3")],
)
def test_file_is_saved_under_a_name_that_suits_it(name: str, file_name: str) -> None:
    require_extension_of_file(Path(name), file_name, ID)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a.mp3", rf"a\.mp3 would be a \.wav file under .*dgx-music render {ID} --output a\.mp3"),
        ("a.xyz", "names no format"),
    ],
)
def test_file_is_not_saved_under_a_name_of_another_format(name: str, problem: str) -> None:
    with pytest.raises(CommandError, match=f"^--output: .*{problem}"):
        require_extension_of_file(Path(name), "x.wav", ID)
