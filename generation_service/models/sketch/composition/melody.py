"""Melodies from motifs: two bars of rhythm and contour, and an answer that ends on the tonic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.music_theory import Chord, Key

_MOTIF_STEPS: Final = 2 * STEPS_PER_BAR
PHRASE_BARS: Final = 4

# The relative probability of a note on each sixteenth of a beat; it is multiplied by the density.
_ONSET_WEIGHTS: Final = (1.5, 0.22, 0.95, 0.3)
_BUSY_WEIGHTS: Final = (1.0, 0.7, 0.9, 0.75)
_BUSY_DENSITY: Final = 0.8
_MOVES: Final = np.array((-3, -2, -1, -1, 0, 1, 1, 2, 3))


@dataclass(frozen=True, slots=True)
class MelodyNote:
    """`step` and `length` are in sixteenths, counted from the start of the phrase; `degree` is in scale steps."""

    step: int
    length: int
    degree: int
    accent: float


def build_phrase(random: np.random.Generator, density: float) -> tuple[MelodyNote, ...]:
    """Builds four bars: a motif, and its repetition with a changed ending that closes on the tonic."""
    steps = _motif_rhythm(random, density)
    degrees = _contour(random, len(steps))
    answer = degrees.copy()
    turn = max(1, len(answer) // 2)
    answer[turn:] = _contour(random, len(answer) - turn, start=int(answer[turn - 1]))
    answer[-1] = 0 if answer[-1] < 4 else 7
    phrase: list[MelodyNote] = []
    for offset, line in ((0, degrees), (_MOTIF_STEPS, answer)):
        for index, step in enumerate(steps):
            following = steps[index + 1] if index + 1 < len(steps) else _MOTIF_STEPS
            length = min(following - step, 8)
            accent = 0.85 + 0.15 * (step % 4 == 0) - 0.1 * float(random.random())
            phrase.append(MelodyNote(offset + step, length, int(line[index]), accent))
    return tuple(phrase)


def resolve_pitch(note: MelodyNote, key: Key, chord: Chord, low: int) -> int:
    """The MIDI pitch of a melody note over a chord, in the two octaves above `low`.

    Notes that are on the beat or long are moved to a chord tone, which makes the melody fit its harmony.
    """
    tonic = low + (key.tonic - low) % 12
    pitch = tonic + key.degree(note.degree)
    if note.step % 8 == 0 or note.length >= 4:
        tones = [pitch + shift for shift in (0, -1, 1, -2, 2) if (pitch + shift) % 12 in chord.pitch_classes]
        pitch = tones[0] if tones else pitch
    elif (pitch - key.tonic) % 12 == 10 and (key.tonic + 11) % 12 in chord.pitch_classes:
        pitch += 1  # The leading note, over a major dominant in a minor key.
    return int(pitch)


def _motif_rhythm(random: np.random.Generator, density: float) -> list[int]:
    weights = np.tile(_BUSY_WEIGHTS if density > _BUSY_DENSITY else _ONSET_WEIGHTS, _MOTIF_STEPS // 4)
    chance = weights * density
    # Usually ends with a rest: a melody without rests sounds like an exercise.
    if random.random() < 0.65:
        chance[-6:] = 0.0
    drawn = random.random(_MOTIF_STEPS)
    steps = [int(step) for step in np.flatnonzero(drawn < chance)]
    if len(steps) < 3:
        steps = sorted({*steps, 0, 6, 16})
    return steps


def _contour(
    random: np.random.Generator, count: int, start: int | None = None
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A random walk over the scale that tends back to its middle."""
    degrees = np.zeros(count, np.int64)
    here = int(random.choice((0, 2, 4, 7))) if start is None else start
    for index in range(count):
        degrees[index] = here
        here += int(random.choice(_MOVES)) + (1 if here < -1 else -1 if here > 7 else 0)
    return degrees
