"""Which chord sounds when."""

from generation_service.models.sketch.composition.form import build_form
from generation_service.models.sketch.composition.harmony import Harmony, build_loop
from generation_service.models.sketch.composition.music_theory import build_key, parse_chord

RATE = 32_000
KEY = build_key(0, minor=False)


def harmony(kind: str, seconds: float, verse: tuple[str, ...], chorus: tuple[str, ...], bars: int = 1) -> Harmony:
    loops = {"A": build_loop(verse, KEY, bars), "B": build_loop(chorus, KEY, bars), "C": build_loop(verse, KEY, bars)}
    form = build_form(round(seconds * RATE), 120.0, RATE, 1.5, 0.0, kind)
    return Harmony.for_form(form, kind, loops, parse_chord("V7", 0))


def roots(harmony: Harmony, bar: int) -> list[int]:
    return [span.chord.root for span in harmony.in_bar(bar)]


def test_sections_have_their_own_chords_and_a_cadence_ends_the_piece() -> None:
    piece = harmony("song", 20.0, ("I", "IV"), ("vi", "ii", "IV", "V"))
    intro, verse, chorus = piece.form.sections
    assert [roots(piece, verse.first_bar + n) for n in range(2)] == [[0], [5]]
    assert [roots(piece, chorus.first_bar + n) for n in range(2)] == [[9], [2]]
    assert roots(piece, piece.form.bars - 1) == [7]
    assert intro.material == verse.material


def test_two_chords_share_a_bar() -> None:
    piece = harmony("song", 20.0, ("I", "ii V"), ("I",))
    verse = piece.form.sections[1]
    first, second = piece.in_bar(verse.first_bar + 1)
    assert [(first.start, first.length, first.chord.root), (second.start, second.chord.root)] == [(0, 8, 2), (8, 7)]
    assert first.following.root == 7
    assert piece.at(verse.first_bar + 1, 7).chord.root == 2
    assert piece.at(verse.first_bar + 1, 8).chord.root == 7


def test_long_chord_begins_once() -> None:
    piece = harmony("song", 60.0, ("I", "IV"), ("I", "IV"), bars=2)
    verse = piece.form.sections[1]
    (start,), (goes_on,) = piece.in_bar(verse.first_bar), piece.in_bar(verse.first_bar + 1)
    assert (start.begins, start.total, goes_on.begins) == (True, 32, False)


def test_tune_goes_on_through_the_solos() -> None:
    """A form of twelve bars is not begun again where a section of eight ends."""
    twelve = ("I", "I", "I", "I", "IV", "IV", "I", "I", "V", "IV", "I", "V")
    piece = harmony("head", 90.0, twelve, twelve)
    first = piece.form.sections[0].bars
    expected = [0, 0, 0, 0, 5, 5, 0, 0, 7, 5, 0, 7]
    assert [roots(piece, first + n)[0] for n in range(24)] == expected * 2
