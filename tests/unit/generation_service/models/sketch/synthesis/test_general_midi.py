"""Every sound has its place in General MIDI."""

from generation_service.models.sketch.synthesis.drums import _RECIPES
from generation_service.models.sketch.synthesis.general_midi import PROGRAMS, drum_key, program_of
from generation_service.models.sketch.synthesis.instruments import INSTRUMENTS


def test_all_instruments_have_a_program() -> None:
    assert set(PROGRAMS) >= INSTRUMENTS
    assert all(0 <= program_of(name) <= 127 for name in INSTRUMENTS)


def test_drums_are_in_the_drum_map() -> None:
    """By their kind, unless they are a snare, which is what an unknown drum is taken for."""
    assert all(drum_key(name) != drum_key("snare") for name in _RECIPES if "snare" not in name)
    assert all(35 <= drum_key(name) <= 81 for name in _RECIPES)
    assert drum_key("techno kick") == drum_key("kick") == 36
