"""Words to brief, and brief to plan."""

import numpy as np
import pytest

from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.music_theory import make_key, parse_chord
from generation_service.models.sketch.composition.plan import Plan, make_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.models.sketch.composition.style import VELOCITIES
from generation_service.models.sketch.synthesis.instruments import PADS, TIMBRES


def plan_of(prompt: str, seed: int = 1) -> Plan:
    return make_plan(parse_prompt(prompt), np.random.default_rng(seed))


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
def test_tempo_in_figures(prompt: str, bpm: float | None) -> None:
    assert parse_prompt(prompt).bpm == bpm


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("trap in C minor", "C minor"),
        ("F# major house", "F# major"),
        ("Bb minor", "Bb minor"),
        ("jazz in b♭ major", "Bb major"),
        ("beat in Cm, slow", "C minor"),
        ("F#m techno", "F# minor"),
        ("a ballad, A min", "A minor"),
        ("ballad in a minor", "A minor"),
        ("E-flat major waltz", "Eb major"),
        ("C sharp minor sonata", "C# minor"),
        ("G dorian groove", "G minor"),
        ("a happy song in D", "D major"),
        ("a sad song in D", "D minor"),
        ("rock in E at 120 bpm, minor", "E minor"),
    ],
)
def test_key(prompt: str, key: str) -> None:
    assert plan_of(prompt).key.name == key


@pytest.mark.parametrize(
    "prompt", ["a minor setback", "in a minor key", "In A club at night", "I am here", "a major hit"]
)
def test_article_is_no_tonic(prompt: str) -> None:
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
        ("heavy metal", "rock"),
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
    brief = parse_prompt(prompt)
    assert brief.instruments == wanted
    assert brief.excluded == excluded


def test_no_drums_is_honoured_in_every_genre() -> None:
    for genre in STYLES:
        plan = plan_of(f"{genre} without drums")
        assert plan.drums == ()
        assert "drums" not in plan.instruments


def test_a_kit_is_borrowed_where_the_genre_has_none() -> None:
    assert plan_of("ambient").drums == ()
    assert plan_of("ambient with drums").drums != ()


def test_alone_leaves_everyone_else_out() -> None:
    assert plan_of("solo piano").instruments == ("piano",)
    assert plan_of("drums only").instruments == ("drums",)
    assert plan_of("a classical harp solo").instruments == ("harp",)
    assert len(plan_of("rock with a guitar solo").instruments) > 2


@pytest.mark.parametrize(
    "prompt", ["no piano, piano " * 4000, "a" * 100_000, "in A " * 20_000, "9" * 100_000, " " * 100_000]
)
@pytest.mark.timeout(60)  # Hundredths of a second, where the time does not grow with the square of the length.
def test_hostile_prompts_are_read_to_their_end(prompt: str) -> None:
    parse_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "sound"),
    [
        ("trap with flute", "flute"),
        ("house with organ", "organ"),
        ("lo-fi with strings", "strings"),
        ("pop with 808", "808"),
        ("jazz with bells", "bells"),
    ],
)
def test_named_instruments_are_cast(prompt: str, sound: str) -> None:
    for seed in range(5):
        assert sound in plan_of(prompt, seed).instruments


def test_excluded_instruments_are_not_cast() -> None:
    for seed in range(8):
        heard = plan_of("trap without bells, no 808", seed).instruments
        assert not {"bells", "808"} & set(heard)


def test_tempo_follows_genre_and_pace() -> None:
    for name, style in STYLES.items():
        low, high = style.bpm
        for seed in range(6):
            assert low <= plan_of(name, seed).bpm <= high
        assert plan_of(f"slow {name}").bpm < low
        assert plan_of(f"fast {name}").bpm > high


def test_every_style_is_sound() -> None:
    for style in STYLES.values():
        for loop in (*style.minor_loops, *style.major_loops):
            assert all(parse_chord(numeral, 0).intervals for numeral in loop)
            assert any(numeral.lower().rstrip("majdsu0123456789") == "i" for numeral in loop), "no tonic"
        parts = [part for part in (style.chords, style.bass, style.lead, style.pad) if part]
        assert {part.sound for part in parts} <= {*TIMBRES, *PADS, "808"}
        assert {*style.lead_alternates, *style.chord_alternates} <= {*TIMBRES, *PADS}
        for rhythm in [r for item in (*parts, *style.drums) for r in item.rhythms]:
            assert len(rhythm) % 16 == 0, (style.name, rhythm)
            assert set(rhythm) <= {*VELOCITIES, "."}, (style.name, rhythm)


def test_scales_and_chords_are_the_textbook_ones() -> None:
    a_minor, d_flat = make_key(9, minor=True), make_key(1, minor=False)
    assert [(9 + a_minor.degree(step)) % 12 for step in range(7)] == [9, 11, 0, 2, 4, 5, 7]
    assert [d_flat.degree(step) for step in (-1, 0, 2, 7)] == [-1, 0, 4, 12]
    assert (a_minor.name, d_flat.name) == ("A minor", "Db major")
    assert parse_chord("iim7b5", 9).pitch_classes == (11, 2, 5, 9)
    assert parse_chord("V7b9", 9).pitch_classes == (4, 8, 11, 2, 5)
    assert parse_chord("bVImaj7", 0).pitch_classes == (8, 0, 3, 7)


def test_bad_chord_says_so() -> None:
    with pytest.raises(ValueError, match="not a chord: 'H7'"):
        parse_chord("H7", 0)


def test_voicings_stay_in_their_window() -> None:
    for numeral in ("ii7", "V13", "Imaj9", "vi"):
        pitches = parse_chord(numeral, 5).voicing(53)
        assert list(pitches) == sorted(set(pitches))
        assert 53 <= pitches[0] <= pitches[-1] < 65
