"""Parsing prompts: tempo, key, genre, instruments and mood."""

import pytest

from generation_service.models.sketch.composition.prompt_parser import parse_prompt


@pytest.mark.parametrize(
    ("prompt", "bpm"),
    [
        ("trap, 140 BPM", 140.0),
        ("140bpm trap", 140.0),
        ("at 92.5 bpm", 92.5),
        ("174-BPM roller", 174.0),
        ("tempo: 120, piano", 120.0),
        ("tempo of 101.5", 101.5),
        ("85 beats per minute", 85.0),
        ("9999 bpm", 240.0),
        ("3 bpm", 40.0),
        ("in 80s style with 808s", None),
        ("piano", None),
    ],
)
def test_tempo_in_digits(prompt: str, bpm: float | None) -> None:
    assert parse_prompt(prompt).bpm == bpm


@pytest.mark.parametrize(
    "prompt", ["a minor setback", "in a minor key", "In A club at night", "I am here", "a major hit"]
)
def test_article_is_not_a_tonic(prompt: str) -> None:
    assert parse_prompt(prompt).tonic is None


def test_mode_without_tonic() -> None:
    assert parse_prompt("a happy tune in a minor key").minor is True
    assert parse_prompt("dark and sad").minor is True
    assert parse_prompt("cheerful").minor is False
    assert parse_prompt("piano").minor is None


@pytest.mark.parametrize(
    ("prompt", "genre"),
    [
        ("chill lo-fi hip hop to study to", "lo-fi"),
        ("lofi", "lo-fi"),
        ("boom bap", "hip hop"),
        ("trap rap", "trap"),
        ("Deep House", "house"),
        ("jazzy house", "house"),
        ("dark TECHNO", "techno"),
        ("liquid d&b", "drum and bass"),
        ("drum 'n' bass", "drum and bass"),
        ("dnb", "drum and bass"),
        ("ambient soundscape", "ambient"),
        ("heavy metal", "metal"),
        ("uplifting trance", "trance"),
        ("filthy dubstep with wobble bass", "dubstep"),
        ("80s synthwave", "synthwave"),
        ("retrowave drive at night", "synthwave"),
        ("roots reggae", "reggae"),
        ("slow blues", "blues"),
        ("blues rock", "rock"),
        ("bossa nova", "bossa nova"),
        ("funky soul", "funk"),
        ("liquid funk", "drum and bass"),
        ("country ballad", "folk"),
        ("indie pop", "pop"),
        ("bebop", "jazz"),
        ("a baroque sonata", "classical"),
        ("popcorn and trapeze", None),
        ("", None),
    ],
)
def test_genre(prompt: str, genre: str | None) -> None:
    assert parse_prompt(prompt).genre == genre


@pytest.mark.parametrize(
    ("prompt", "wanted", "excluded"),
    [
        ("piano and guitar", ("piano", "guitar"), set()),
        ("electric piano over a bass guitar", ("epiano", "bass"), set()),
        ("drum and bass", (), set()),
        ("house without drums or bass, with flute", ("flute",), {"drums", "bass"}),
        ("no piano, no strings", (), {"piano", "strings"}),
        ("drumless loop", (), {"drums"}),
        ("808s, bells, choir", ("808", "bells", "choir"), set()),
    ],
)
def test_instruments(prompt: str, wanted: tuple[str, ...], excluded: set[str]) -> None:
    parsed = parse_prompt(prompt)
    assert parsed.instruments == wanted
    assert parsed.excluded == excluded


@pytest.mark.parametrize(
    "prompt", ["no piano, piano " * 4000, "a" * 100_000, "in A " * 20_000, "9" * 100_000, " " * 100_000]
)
@pytest.mark.timeout(60)  # Linear parsing takes hundredths of a second.
def test_long_repetitive_prompts_are_parsed_in_linear_time(prompt: str) -> None:
    parse_prompt(prompt)
