"""The data of the genres."""

import pytest

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.harmony import build_loop
from generation_service.models.sketch.composition.music_theory import build_key, parse_chord
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.models.sketch.composition.style import VELOCITIES, Style
from generation_service.models.sketch.synthesis.drums import render_drum
from generation_service.models.sketch.synthesis.instruments import INSTRUMENTS

ROLES = ("chords", "bass", "lead", "pad", "figure")


def test_there_are_twenty_and_prompts_name_each() -> None:
    assert len(STYLES) == 20
    for name in STYLES:
        assert parse_prompt(name).genre == name
        assert parse_prompt(f"some {name.upper()}, please").genre == name


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_style_is_consistent(style: Style) -> None:
    for loop in (*style.minor_loops, *style.major_loops):
        tonics = [name for entry in loop for name in entry.split() if parse_chord(name, 0).root == 0]
        assert tonics, f"{loop} has no tonic"
    for key in (build_key(3, minor=True), build_key(3, minor=False)):
        for loop in style.minor_loops if key.minor else style.major_loops:
            assert build_loop(loop, key, style.chord_bars).steps == len(loop) * style.chord_bars * STEPS_PER_BAR
    assert all(parse_chord(name, 0).intervals for name in style.cadence)
    parts = [part for part in (getattr(style, role) for role in ROLES) if part]
    sounds = {part.sound for part in parts} | {sound for part in parts for sound in part.alternates}
    assert sounds <= INSTRUMENTS
    for drum in style.drums:
        assert render_drum(drum.sound, 0).shape[1] > 0
    for rhythm in [r for item in (*parts, *style.drums) for r in item.rhythms]:
        assert len(rhythm) % STEPS_PER_BAR == 0, rhythm
        assert set(rhythm) <= {*VELOCITIES, ".", "_"}, rhythm
    assert all(len(cell) == STEPS_PER_BAR and set(cell) <= set("Xxo._") for cell in style.cells)
    assert style.cells[0] != style.cells[1]
    known = {"chords", "pad", "figure", "bass", "lead", "texture", *(drum.sound for drum in style.drums)}
    assert style.intro <= known
    assert style.breakdown <= known


def test_no_two_genres_share_their_rhythm() -> None:
    with_drums = [style for style in STYLES.values() if style.drums]
    grooves = {tuple((drum.sound, drum.rhythms[0]) for drum in style.drums[:3]) for style in with_drums}
    assert len(grooves) == len(with_drums)
