"""The genres by what can be heard of them: tempo, key, swing, density of onsets, brightness, and what seeds change."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from generation_service.models.sketch.composition.genres import STYLES
from tests.support.sketch_clips import is_near_key
from tests.support.sketch_measures import (
    Rendering,
    analyse,
    distance,
    fingerprint,
    loudness_lufs,
    onset_density,
    render_sketch,
    spectral_centroid,
    swing,
)

SECONDS = 20.0
QUICK = ("funk", "bossa nova", "trance")
"""The genres whose checks are quick enough for every run of the tests; the others are slow only by their number."""
HEARD = {
    "hip hop": (2.3, 5.5, 1500, 2450), "trap": (4.0, 7.5, 2650, 3850), "lo-fi": (2.0, 4.5, 1150, 1650),
    "house": (5.0, 8.5, 2650, 3750), "techno": (5.5, 9.0, 2150, 3150), "trance": (4.5, 8.0, 2450, 3600),
    "drum and bass": (6.5, 11.0, 3200, 4450), "dubstep": (2.8, 6.0, 2750, 3950), "synthwave": (2.5, 5.5, 1900, 2800),
    "rock": (3.2, 6.5, 2500, 3450), "metal": (4.2, 9.0, 2300, 3500), "pop": (4.0, 7.0, 2550, 3650),
    "funk": (4.8, 8.0, 2650, 3850), "reggae": (3.2, 5.5, 1550, 2300), "blues": (2.3, 5.0, 1950, 2900),
    "bossa nova": (5.5, 9.0, 1850, 2750), "jazz": (2.5, 5.0, 3350, 4700), "folk": (2.8, 5.5, 2400, 3550),
    "classical": (2.5, 6.0, 1150, 1800), "ambient": (0.0, 1.5, 1000, 1450),
}  # fmt: skip
"""Genre → from … to onsets per second, from … to Hz of the spectral centroid."""
BEATLESS = "ambient"
SWING_TOLERANCE = 0.09
"""A snare 12 ms behind the beat adds 0.06 of a sixteenth at 78 BPM."""


def each_genre() -> list[object]:
    """The genres, of which all but the quick ones are marked slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STYLES]


@cache
def take(genre: str, seed: int) -> Rendering:
    return render_sketch(genre, SECONDS, seed)


def heard(piece: Rendering) -> tuple[bool, bool]:
    """Whether export's analysis finds the tempo, or as its alternative half or double of it, and exactly the key."""
    found = analyse(piece.samples)
    tempi = (found.tempo.bpm, found.tempo.alternative_bpm) if found.tempo else ()
    key = found.key is not None and is_near_key(found.key.name, piece.key, exactly=True)
    return any(abs(bpm / piece.bpm - 1.0) <= 0.02 for bpm in tempi), key


@pytest.mark.parametrize("genre", each_genre())
def test_genre_is_heard(genre: str) -> None:
    piece = take(genre, 1)
    style = STYLES[genre]
    low_density, high_density, low_hz, high_hz = HEARD[genre]
    assert low_density <= onset_density(piece.samples) <= high_density
    assert low_hz <= spectral_centroid(piece.samples) <= high_hz
    assert style.bpm[0] <= piece.bpm <= style.bpm[1]
    assert -18.0 <= loudness_lufs(piece.samples) <= -14.0
    assert np.abs(piece.samples).max() < 0.9
    if style.drums and genre != "folk":  # Strums of six strings blur where a sixteenth is.
        unit = 0.5 if style.swing_eighths else 0.25
        assert swing(piece.samples, piece.bpm, unit) == pytest.approx(style.swing, abs=SWING_TOLERANCE)


@pytest.mark.slow
def test_tempo_and_key_are_heard() -> None:
    """In at least 95 % of all genres and seeds. Music without a beat is not asked for its tempo."""
    found = {(genre, seed): heard(take(genre, seed)) for genre in STYLES for seed in range(5)}
    no_tempo = [place for place, (tempo, _) in found.items() if not tempo and place[0] != BEATLESS]
    no_key = [place for place, (_, key) in found.items() if not key]
    assert len(no_tempo) <= 0.05 * len(found), no_tempo
    assert len(no_key) <= 0.05 * len(found), no_key


def test_tempo_and_key_of_the_quick_genres_are_heard() -> None:
    for genre in QUICK:
        assert heard(take(genre, 1)) == (True, True), genre


@pytest.mark.slow
@pytest.mark.parametrize("genre", STYLES)
def test_no_two_seeds_are_alike(genre: str) -> None:
    """With tempo and key given, so that they can't make the difference."""
    bpm = round(sum(STYLES[genre].bpm) / 2)
    prints = [fingerprint(render_sketch(f"{genre} at {bpm} BPM in A minor", SECONDS, seed)) for seed in range(4)]
    assert distance(prints[0], prints[0]) == pytest.approx(0.0, abs=1e-6)
    assert min(distance(first, second) for first, second in combinations(prints, 2)) > 0.08


@pytest.mark.slow
def test_genres_are_told_apart() -> None:
    """The nearest genre by tempo, density, brightness and swing is the piece's own, or shares its tempo range."""

    def features(piece: Rendering) -> list[float]:
        density, centroid = onset_density(piece.samples), spectral_centroid(piece.samples)
        swings = [swing(piece.samples, piece.bpm, unit) for unit in (0.25, 0.5)]
        return [piece.bpm / 15.0, 1.2 * density, centroid / 250.0, 12.0 * swings[0], 12.0 * swings[1]]

    centres = {genre: np.mean([features(take(genre, seed)) for seed in (0, 1, 2)], axis=0) for genre in STYLES}
    right = 0
    for genre in STYLES:
        for seed in (3, 4):
            measured = np.asarray(features(take(genre, seed)))
            nearest = sorted(centres, key=lambda other: float(np.linalg.norm(centres[other] - measured)))
            right += genre in nearest[:2]
    assert right >= 0.85 * 2 * len(STYLES), right
