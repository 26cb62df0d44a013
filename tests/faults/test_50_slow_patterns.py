"""Data that takes a careless reader hours: texts that a regular expression could try in countless ways, and files of
zeros, which are countless empty parts. Each is read at once.

Nothing is timed: where an expression takes a time that grows with the square of the length, 300,000 characters take
it hours, and the test ends by pytest's timeout; so do files of a terabyte, which take no space.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_COVER_BYTES
from export_service.tagging.containers import read_comment
from export_service.tagging.cover import parse_cover
from gateway.cli.commands.model_download import CODEC_NAME, TEXT_ENCODER_NAME, find_name
from generation_service.models.model_card import UNKNOWN_LICENCE, read_licence
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from service_runtime.prompt_tempo import parse_tempo

LENGTH = 300_000
SPACES = [" ", "\n", "\t", "\u2003"]


@pytest.mark.parametrize("space", SPACES, ids=ascii)
@pytest.mark.parametrize("start", ["1234", "tempo", "tempo of", "key of", "in A", "C", "no drums and", "piano"])
def test_prompt_with_many_spaces(start: str, space: str) -> None:
    prompt = f"{start}{space * LENGTH}!"
    assert parse_tempo(prompt) is None
    assert parse_prompt(prompt).bpm is None
    assert parse_tempo(f"house at 124{space * LENGTH}BPM") == 124.0


@pytest.mark.parametrize("card", ["---" + "\n" * LENGTH, "---\n" + "\n---" * LENGTH + "x", "---" + " " * LENGTH])
def test_model_card_with_many_lines(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert read_licence(tmp_path, "own") == UNKNOWN_LICENCE


@pytest.mark.parametrize("content", [b"a", b"a/", b"name: ", b"name: a", b"t5-", b".-"])
def test_checkpoint_with_a_long_name(tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "state_dict.bin"
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("archive/data.pkl", (content * LENGTH)[:LENGTH] + b" name: t5-base facebook/encodec_32khz ")
    assert find_name(checkpoint, CODEC_NAME) == "facebook/encodec_32khz"
    assert find_name(checkpoint, TEXT_ENCODER_NAME) == "t5-base"


HEADS = {
    "WAV": b"RIFF\xff\xff\xff\xffWAVE",
    "RF64": b"RF64\xff\xff\xff\xffWAVEds64",
    "AIFF": b"FORM\xff\xff\xff\xffAIFF",
    "CAF": b"caff\x00\x01\x00\x00",
    "W64": b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    "FLAC": b"fLaC",
    "MP3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f",
    "Ogg": b"OggS",
    "M4A": b"\x00\x00\x00\x14ftypM4A " + b"\x00\x00\x00\x02abcd" * 100_000,
}
FILE_BYTES = 1 << 40


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_file_that_became_zeros(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(head)
    os.truncate(path, FILE_BYTES)
    assert read_comment(path) == ""


@pytest.mark.parametrize(
    "segment", [b"\xff", b"\xff\xe0\0\2", b"\xff" * 1000 + b"\xe0\0\2"], ids=["fill", "empty", "both"]
)
def test_cover_without_a_size(segment: bytes) -> None:
    data = b"\xff\xd8\xff" + segment * (MAX_COVER_BYTES // len(segment) - 1)
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)
    try:
        with pytest.raises(InvalidArgument):
            parse_cover(data, "cover")
    finally:
        sys.setprofile(None)
    assert steps < 100_000
