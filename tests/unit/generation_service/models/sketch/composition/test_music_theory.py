"""Keys, chords and voicings."""

import pytest

from generation_service.models.sketch.composition.music_theory import build_key, parse_chord


def test_scales_and_chords() -> None:
    a_minor, d_flat = build_key(9, minor=True), build_key(1, minor=False)
    assert [(9 + a_minor.degree(step)) % 12 for step in range(7)] == [9, 11, 0, 2, 4, 5, 7]
    assert [d_flat.degree(step) for step in (-1, 0, 2, 7)] == [-1, 0, 4, 12]
    assert (a_minor.name, d_flat.name) == ("A minor", "Db major")
    assert parse_chord("iim7b5", 9).pitch_classes == (11, 2, 5, 9)
    assert parse_chord("V7b9", 9).pitch_classes == (4, 8, 11, 2, 5)
    assert parse_chord("bVImaj7", 0).pitch_classes == (8, 0, 3, 7)


def test_invalid_chord_is_rejected() -> None:
    with pytest.raises(ValueError, match="'H7' is not a chord"):
        parse_chord("H7", 0)


def test_voicings_stay_within_an_octave() -> None:
    for numeral in ("ii7", "V13", "Imaj9", "vi"):
        pitches = parse_chord(numeral, 5).voicing(53)
        assert list(pitches) == sorted(set(pitches))
        assert 53 <= pitches[0] <= pitches[-1] < 65
