"""Texts from outside that a regular expression could try in countless ways: each is read at once.

Nothing is timed: where an expression takes a time that grows with the square of the length, 300,000 characters take
it hours, and the test ends by pytest's timeout.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

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
