"""Voice leading."""

from itertools import pairwise

import pytest

from generation_service.models.sketch.composition.genres import STYLES
from generation_service.models.sketch.composition.harmony import build_loop
from generation_service.models.sketch.composition.music_theory import build_key, parse_chord
from generation_service.models.sketch.composition.voicing import lead_voices, power_chord


def motion(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    return max(min(abs(tone - other) for other in before) for tone in after)


@pytest.mark.parametrize("kind", ["close", "open", "rootless", "triad"])
@pytest.mark.parametrize("tonic", range(12))
def test_voices_move_little_and_keep_the_chord(kind: str, tonic: int) -> None:
    for style in STYLES.values():
        for loop in style.major_loops:
            chords = build_loop(loop, build_key(tonic, minor=False), 1).chords
            voicings = lead_voices(chords, 52, kind)
            for chord, voicing in zip(chords, voicings, strict=True):
                assert list(voicing) == sorted(set(voicing))
                assert {pitch % 12 for pitch in voicing} <= {pitch % 12 for pitch in chord.pitch_classes}
                assert voicing[0] >= 47
                assert voicing[-1] <= 52 + 15 + 12
            for before, after in pairwise([*voicings, voicings[0]]):
                assert motion(before, after) <= 5, (style.name, loop, before, after)


def test_common_tones_stay() -> None:
    """C major and A minor share two tones; the third voice moves by a step."""
    c_major, a_minor = lead_voices((parse_chord("I", 0), parse_chord("vi", 0)), 52, "close")
    assert len(set(c_major) & set(a_minor)) == 2
    assert sum(abs(a - b) for a, b in zip(c_major, a_minor, strict=True)) == 2


def test_rootless_voicing_leaves_the_root_to_the_bass() -> None:
    (voicing,) = lead_voices((parse_chord("ii9", 0),), 52, "rootless")
    assert {pitch % 12 for pitch in voicing} == {5, 9, 0, 4}


def test_power_chord() -> None:
    assert power_chord(parse_chord("V5", 0), 40) == (43, 50, 55)
