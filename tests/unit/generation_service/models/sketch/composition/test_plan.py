"""The plan: key, tempo and instruments that follow from a prompt and a seed."""

import numpy as np
import pytest

from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.plan import Plan, build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt


def plan_for(prompt: str, seed: int = 1) -> Plan:
    return build_plan(parse_prompt(prompt), np.random.default_rng(seed))


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
    assert plan_for(prompt).key.name == key


def test_without_drums_no_genre_has_drums() -> None:
    for genre in STYLES:
        plan = plan_for(f"{genre} without drums")
        assert plan.drums == ()
        assert "drums" not in plan.instruments


def test_genre_without_drums_borrows_a_kit_if_drums_are_named() -> None:
    assert plan_for("ambient").drums == ()
    assert plan_for("ambient with drums").drums != ()


def test_solo_instrument_plays_alone() -> None:
    assert plan_for("solo piano").instruments == ("piano",)
    assert plan_for("drums only").instruments == ("drums",)
    assert plan_for("a classical harp solo").instruments == ("harp",)
    assert len(plan_for("rock with a guitar solo").instruments) > 2


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
def test_named_instruments_are_used(prompt: str, sound: str) -> None:
    for seed in range(5):
        assert sound in plan_for(prompt, seed).instruments


def test_excluded_instruments_are_not_used() -> None:
    for seed in range(8):
        instruments = plan_for("trap without bells, no 808", seed).instruments
        assert not {"bells", "808"} & set(instruments)


def test_tempo_follows_genre_and_pace() -> None:
    for name, style in STYLES.items():
        low, high = style.bpm
        for seed in range(6):
            assert low <= plan_for(name, seed).bpm <= high
        assert plan_for(f"slow {name}").bpm < low
        assert plan_for(f"fast {name}").bpm > high
