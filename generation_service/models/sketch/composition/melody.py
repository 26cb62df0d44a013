"""Melodies from motifs: an eight-bar period of rhythm and contour, with a question, an answer and a cadence."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.music_theory import Chord, Key
from generation_service.models.sketch.composition.style import VELOCITIES

PERIOD_BARS: Final = 8

# Which bar of rhythm each bar of the period has: a, b, c are cells; z is a cadence.
_PLANS: Final = ("abacabaz", "aabcaabz", "abcbabcz", "abababaz", "aaabaaaz", "abacbcbz")
_SHAPES: Final = ("arch", "valley", "fall", "rise", "wave")
_STEP: Final = 2
"""The largest move between most notes, in scale steps."""
_LEAP: Final = 4
_LEAP_CHANCE: Final = 0.2
_MAJOR_SEVENTH: Final = 11
_REPEAT_CHANCE: Final = 0.22
_SCALES: Final[dict[tuple[str, bool], tuple[int, ...]]] = {
    ("diatonic", True): (0, 2, 3, 5, 7, 8, 10),
    ("diatonic", False): (0, 2, 4, 5, 7, 9, 11),
    ("harmonic", True): (0, 2, 3, 5, 7, 8, 11),
    ("harmonic", False): (0, 2, 4, 5, 7, 9, 11),
    ("pentatonic", True): (0, 3, 5, 7, 10),
    ("pentatonic", False): (0, 2, 4, 7, 9),
    ("blues", True): (0, 3, 5, 6, 7, 10),
    ("blues", False): (0, 2, 3, 4, 7, 9),
}
_LONG: Final = 4
"""Notes of this many sixteenths are chord tones."""


@dataclass(frozen=True, slots=True)
class MelodyNote:
    """`step` and `length` are in sixteenths, counted from the start of the period; `degree` is in steps of the seven
    notes of the key."""

    step: int
    length: int
    degree: int
    accent: float
    is_final: bool = False
    """Whether it ends the period."""


def build_period(random: np.random.Generator, cells: tuple[str, ...], hold: int, lift: int) -> tuple[MelodyNote, ...]:
    """Eight bars: a motif of two bars, its sequence, the motif again, and an answer that closes on the tonic.

    `cells` are bars of rhythm, `hold` is the longest note in sixteenths, and `lift` how many scale steps higher than
    usual the melody lies.
    """
    plan = _PLANS[int(random.integers(len(_PLANS)))]
    order = random.permutation(len(cells))
    rhythm = {name: cells[int(order[number % len(order)])] for number, name in enumerate("abc")}
    start = int(random.choice((0, 2, 4))) + lift
    shapes = [str(random.choice(_SHAPES)) for _ in range(3)]
    steps_apart = int(random.choice((-2, -1, 1, 2)))
    notes: list[MelodyNote] = []
    lines: dict[str, npt.NDArray[np.int64]] = {}
    for bar, name in enumerate(plan):
        cell = rhythm["a"] if name == "z" else rhythm[name]
        onsets = _onsets(cell, hold, is_cadence=name == "z")
        key = f"{name}{len(onsets)}"
        if key not in lines:
            lines[key] = _contour(random, len(onsets), start, shapes[len(lines) % 3])
        line = lines[key] + (steps_apart if bar in (2, 3) else 0)
        if name == "z":
            line = _towards(line, 0 if start < 5 else 7)
        for index, (step, length, velocity) in enumerate(onsets):
            accent = velocity * (0.86 + 0.14 * (step % 8 == 0))
            final = name == "z" and index == len(onsets) - 1
            notes.append(MelodyNote(bar * STEPS_PER_BAR + step, length, int(line[index]), accent, final))
    return tuple(notes)


def resolve_pitch(note: MelodyNote, key: Key, chord: Chord, low: int, scale: str) -> int:
    """The MIDI pitch of a melody note over a chord, near the octave above `low`.

    Notes that are long or on a strong beat are moved to a chord tone, which makes the melody fit its harmony; the
    others to the scale of the genre. The last note of a period is the tonic if the chord has it.
    """
    tonic = low + (key.tonic - low) % 12
    pitch = tonic + key.degree(note.degree)
    if note.is_final and key.tonic in chord.pitch_classes:
        return min((tonic, tonic + 12), key=lambda tone: abs(tone - pitch))
    if note.step % 8 == 0 or note.length >= _LONG:
        return _nearest(pitch, _stable_tones(chord))
    classes = tuple((key.tonic + tone) % 12 for tone in _SCALES[scale, key.minor])
    pitch = _nearest(pitch, classes)
    if (pitch - key.tonic) % 12 == 10 and (key.tonic + 11) % 12 in chord.pitch_classes:
        pitch += 1  # The leading note, over a major dominant in a minor key.
    return pitch


def _stable_tones(chord: Chord) -> tuple[int, ...]:
    """The tones on which a melody can rest. Over a major seventh, the root is a half-step away from a chord tone."""
    if _MAJOR_SEVENTH in chord.intervals:
        return chord.pitch_classes[1:]
    return chord.pitch_classes


def _nearest(pitch: int, classes: tuple[int, ...]) -> int:
    return next((pitch + shift for shift in (0, -1, 1, -2, 2, -3, 3) if (pitch + shift) % 12 in classes), pitch)


def _onsets(cell: str, hold: int, *, is_cadence: bool) -> list[tuple[int, int, float]]:
    """(step, length, velocity) of each note of a bar of rhythm. A cadence keeps its first half and then rests."""
    ends = [at for at, symbol in enumerate(cell) if symbol != "."] + [len(cell)]
    found = [
        (at, min(following - at, hold), VELOCITIES[cell[at]]) for at, following in pairwise(ends) if cell[at] != "_"
    ]
    if is_cadence:
        kept = [onset for onset in found if onset[0] < 8][:3] or [(0, 4, 1.0)]
        at = 8 if kept[-1][0] < 8 else kept[-1][0] + 2
        found = [
            *((step, min(length, at - step), velocity) for step, length, velocity in kept),
            (at, min(6, hold), 1.0),
        ]
    return found


def _contour(random: np.random.Generator, count: int, start: int, shape: str) -> npt.NDArray[np.int64]:
    """A line of scale steps that follows a shape. Leaps are limited, and some notes are repeated."""
    time = np.linspace(0.0, 1.0, max(2, count))[:count]
    span = float(random.choice((2.0, 3.0, 4.0, 5.0)))
    curves = {
        "arch": np.sin(np.pi * time),
        "valley": -np.sin(np.pi * time),
        "fall": -time,
        "rise": time,
        "wave": np.sin(2.0 * np.pi * time),
    }
    wanted = start + span * curves[shape] + random.normal(0.0, 0.7, count)
    line = np.zeros(count, np.int64)
    here = start
    for index in range(count):
        repeats = index > 0 and random.random() < _REPEAT_CHANCE
        most = _LEAP if random.random() < _LEAP_CHANCE else _STEP
        move = 0 if repeats else int(np.clip(round(float(wanted[index]) - here), -most, most))
        here = int(np.clip(here + move, -3, 11))
        line[index] = here
    return line


def _towards(line: npt.NDArray[np.int64], goal: int) -> npt.NDArray[np.int64]:
    """The line bent so that it ends on a scale step."""
    share = np.linspace(0.0, 1.0, len(line))
    bent = np.round(line + (goal - line[-1]) * share).astype(np.int64)
    bent[-1] = goal
    return np.asarray(bent)
