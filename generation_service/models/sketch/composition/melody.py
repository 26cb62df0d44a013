"""Melodies from motifs: two bars of rhythm and contour, answered, repeated and brought home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.music_theory import Chord, Key

_MOTIF_STEPS: Final = 2 * STEPS_PER_BAR
PHRASE_BARS: Final = 4

# How likely a note begins on each sixteenth of a beat, before the density is applied.
_ONSET_WEIGHTS: Final = (1.5, 0.22, 0.95, 0.3)
_BUSY_WEIGHTS: Final = (1.0, 0.7, 0.9, 0.75)
_BUSY_DENSITY: Final = 0.8
_MOVES: Final = np.array((-3, -2, -1, -1, 0, 1, 1, 2, 3))


@dataclass(frozen=True, slots=True)
class MelodyNote:
    """``step`` and ``length`` in sixteenths from the phrase's start, ``degree`` in scale steps."""

    step: int
    length: int
    degree: int
    accent: float


def build_phrase(random: np.random.Generator, density: float) -> tuple[MelodyNote, ...]:
    """Four bars: a motif, and the motif again with its end changed, closing on the tonic's chord."""
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
    """The MIDI pitch of a melody note over a chord, in the two octaves above ``low``.

    Notes on the beat or held are pulled to a chord tone: that is what makes a melody fit its harmony.
    """
    tonic = low + (key.tonic - low) % 12
    pitch = tonic + key.degree(note.degree)
    if note.step % 8 == 0 or note.length >= 4:
        tones = [pitch + shift for shift in (0, -1, 1, -2, 2) if (pitch + shift) % 12 in chord.pitch_classes]
        pitch = tones[0] if tones else pitch
    elif (pitch - key.tonic) % 12 == 10 and (key.tonic + 11) % 12 in chord.pitch_classes:
        pitch += 1  # The leading note of a major dominant in minor.
    return int(pitch)


def _motif_rhythm(random: np.random.Generator, density: float) -> list[int]:
    weights = np.tile(_BUSY_WEIGHTS if density > _BUSY_DENSITY else _ONSET_WEIGHTS, _MOTIF_STEPS // 4)
    chance = weights * density
    # A breath at the end, more often than not: a melody without rests is an exercise.
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
    """A walk over the scale that leans back to its middle."""
    degrees = np.zeros(count, np.int64)
    here = int(random.choice((0, 2, 4, 7))) if start is None else start
    for index in range(count):
        degrees[index] = here
        here += int(random.choice(_MOVES)) + (1 if here < -1 else -1 if here > 7 else 0)
    return degrees
