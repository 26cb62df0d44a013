"""Reading the values of --also, --section, --adapter, --lyrics and --loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.storage.v1.conditioning_pb2 import Adapter, Loop, PromptSection, WeightedPrompt
from gateway.cli.commands.generation.shaping_options import (
    ShapingOptions,
    parse_adapter,
    parse_section,
    parse_weighted,
    read_lyrics,
)
from gateway.cli.session.command_errors import CommandError


@pytest.mark.parametrize(
    ("text", "prompt", "weight"),
    [
        ("strings", "strings", 1.0),
        ("strings:0.5", "strings", 0.5),
        ("mood: dark", "mood: dark", 1.0),
        ("mood: dark:2", "mood: dark", 2.0),
        ("x:", "x:", 1.0),
    ],
)
def test_weight_follows_the_last_colon(text: str, prompt: str, weight: float) -> None:
    assert parse_weighted(text) == WeightedPrompt(prompt=prompt, weight=weight)


def test_section_has_span_and_text() -> None:
    expected = PromptSection(start_seconds=0.5, end_seconds=16, prompt="calm: piano")
    assert parse_section(" .5:16  calm: piano ") == expected
    for text in ("", "calm piano", "8 calm", "1:2:3 calm", "a:b calm"):
        with pytest.raises(CommandError, match="--section"):
            parse_section(text)


def test_adapter_has_name_and_scale() -> None:
    assert parse_adapter("lofi") == Adapter(name="lofi")
    assert parse_adapter("lofi:-0.5") == Adapter(name="lofi", scale=-0.5)
    with pytest.raises(CommandError, match=r"write for example lofi:0\.8"):
        parse_adapter("lofi:strong")


def test_lyrics_come_from_text_or_file(tmp_path: Path) -> None:
    file = tmp_path / "lyrics.txt"
    file.write_bytes("\ufeff[verse]\r\nlá\r\n".encode())
    assert read_lyrics("la la") == "la la"
    assert read_lyrics(f"@{file}") == "[verse]\nlá\n"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="not a text file in UTF-8"):
        read_lyrics(f"@{file}")
    with pytest.raises(CommandError, match="failed to read"):
        read_lyrics(f"@{tmp_path}")


@pytest.mark.parametrize("text", ["8", "8bars", "8 Bars", " 8bar "])
def test_loop_is_a_number_of_bars(text: str) -> None:
    assert ShapingOptions(loop=text, tempo=90.0, beats=3).build_loop() == Loop(bars=8, bpm=90, beats_per_bar=3)


def test_nothing_given_makes_nothing() -> None:
    options = ShapingOptions()
    assert (options.build_conditioning({}), options.build_loop(), options.parse_sources()) == (None, None, {})
