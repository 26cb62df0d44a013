"""Bass lines: roots, octaves, walking and shuffling lines, riffs, and the notes that lead to the next chord."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.harmony import ChordSpan
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.parts.bar import Bar, Hit
from generation_service.models.sketch.composition.style import Part

# Riffs as semitones above the root; 4 is replaced by the third of the chord.
_RIFFS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "riff": ((0, 0, 7, 12, 10, 7), (0, 12, 10, 7, 0, 10), (0, 0, 12, 0, 10, 7), (0, 7, 10, 12, 0, 7)),
    "reggae": ((0, 0, 4, 7, 7, 4), (0, 7, 7, 4, 0, 0), (12, 7, 4, 0, 0, 4), (0, 4, 7, 12, 7, 4), (0, 0, 0, 7, 4, 7)),
    "funk": ((0, 12, 0, 10, 12, 0, 7), (0, 0, 12, 7, 10, 12, 0), (0, 12, 10, 7, 0, 12, 10), (0, 0, 10, 12, 0, 7, 10)),
    "metal": ((0, 0, 0, 3, 0, 5), (0, 0, 1, 0, 0, 3), (0, 0, 7, 5, 3, 0)),
}
_BOOGIE: Final = ((0, 4, 7, 9, 10, 9, 7, 4), (0, 0, 4, 4, 7, 7, 9, 7), (0, 4, 7, 4, 9, 7, 10, 7))
_GLIDES: Final = (12, 7, -5, 3)
_WOBBLES: Final = (2, 4, 3, 8, 1, 6)
"""How often the filter of a wobble bass opens in a bar's half; the seed orders them."""
_APPROACHES: Final = frozenset({"groove", "riff", "reggae", "fifths", "octaves", "boogie"})
"""The patterns whose last note leads to the next root."""
_APPROACH_CHANCE: Final = 0.6


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the bass line a note stands."""

    hit: Hit
    index: int
    is_last: bool
    span: ChordSpan
    root: int
    target: int
    """The next root."""


def write_bass(bar: Bar, part: Part) -> Iterator[Note]:
    """The bass notes of a bar."""
    feel = bar.feel("bass")
    guitar = bar.plan.chords
    if part.pattern == "follow" and guitar is not None:
        rhythm = bar.rhythm(guitar, "chords")
    else:
        rhythm = bar.rhythm(part, "bass")
    random = bar.random(f"bass line {bar.section.material}", bar.in_section % 8)
    hits = _with_chord_changes(bar, list(bar.hits(rhythm)), part)
    pattern = _PATTERNS.get(part.pattern, _root)
    for index, hit in enumerate(hits):
        span = bar.chord_at(hit.step)
        root = span.chord.bass(part.low)
        target = span.following.bass(part.low)
        if target - root > 7:
            target -= 12
        elif root - target > 7:
            target += 12
        is_last = index == len(hits) - 1 or bar.chord_at(hits[index + 1].step) is not span
        place = _Place(hit, index, is_last, span, root, target)
        pitch = pattern(bar, part, place, random)
        if part.pattern in _APPROACHES and _approaches(place, random):
            pitch = target + int(random.choice((-1, 1, -2)))
        yield _bass_note(bar, part, place, pitch, feel, random)


def _bass_note(
    bar: Bar, part: Part, place: _Place, pitch: int, feel: np.random.Generator, random: np.random.Generator
) -> Note:
    glide, lfo_hz, hit = 0, 0.0, place.hit
    if part.pattern == "trap" and part.sound == "808" and place.is_last and random.random() < 0.35:
        glide = int(random.choice(_GLIDES))
    if part.pattern == "wobble":
        order = bar.random(f"wobble {bar.section.material}").permutation(_WOBBLES)
        turns = int(order[(place.index + 3 * (bar.in_section % 2)) % len(order)])
        lfo_hz = turns * 2.0 * bar.rate_hz / bar.form.bar_frames
    while pitch < part.low - 5:
        pitch += 12
    return bar.note(part, "bass", hit, (pitch,), feel, glide=glide, lfo_hz=round(lfo_hz, 3))


def _with_chord_changes(bar: Bar, hits: list[Hit], part: Part) -> list[Hit]:
    """Adds a note where a chord begins while the one before is still sounding, and ends that one."""
    for span in bar.chords[1:]:
        for index, hit in enumerate(hits):
            if hit.step < span.start < hit.step + hit.length and part.gate > 0.7:
                held = span.start - hit.step
                hits[index] = Hit(hit.step, held, hit.velocity, hit.articulation)
                hits.insert(index + 1, Hit(span.start, hit.length - held, hit.velocity, ""))
                break
    return hits


def _approaches(place: _Place, random: np.random.Generator) -> bool:
    drawn = random.random()
    return place.is_last and place.index > 0 and place.target != place.root and drawn < _APPROACH_CHANCE


def _root(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    return place.root


def _octaves(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    return place.root + 12 if place.index and random.random() < 0.4 else place.root


def _disco(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    return place.root + (12 if int(place.hit.step) % 4 == 2 else 0)


def _pedal(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    """Repeated roots; the end of every second bar jumps."""
    if bar.in_section % 2 and place.hit.step >= 12:
        return place.root + (12, 7)[int(place.hit.step) % 2]
    return place.root


def _groove(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    drawn = int(random.choice((0, 0, 12, 7, 10)))
    return place.root + (drawn if place.index else 0)


def _fifths(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    """Root and fifth in turn; the fifth lies below if there is room."""
    fifth = place.root - 5 if place.root - 5 >= part.low - 3 else place.root + 7
    return fifth if int(place.hit.step) % 16 >= 8 and place.hit.step - place.span.start >= 4 else place.root


def _walking(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    """One beat of a walking line: the root, chord and scale tones, and a half-step to the next root."""
    rises = random.random() < 0.55
    if place.index == 0 or place.hit.step == place.span.start:
        return place.root
    if place.is_last:
        return place.target + (-1 if rises else 1)
    tones = [place.root + interval for interval in place.span.chord.intervals[1:4] if interval < 12]
    pitch = int(random.choice(tones))
    return pitch - (12 if place.root > part.low + 8 and not rises else 0)


def _boogie(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    line = _BOOGIE[int(bar.random("boogie").integers(len(_BOOGIE)))]
    return place.root + _in_chord(line[place.index % len(line)], place.span)


def _riff(bar: Bar, part: Part, place: _Place, random: np.random.Generator) -> int:
    riffs = _RIFFS.get(part.pattern, _RIFFS["riff"])
    line = riffs[int(bar.random(f"riff {bar.section.material}").integers(len(riffs)))]
    offset = 0 if bar.in_section % 2 == 0 else 1
    interval = line[(place.index + offset * (place.index > 1)) % len(line)]
    return place.root + _in_chord(interval, place.span)


def _in_chord(interval: int, span: ChordSpan) -> int:
    """Replaces a third or seventh by the one of the chord."""
    classes = {tone % 12 for tone in span.chord.intervals}
    if interval in (3, 4):
        return 3 if 3 in classes else 4
    if interval in (10, 11) and 11 in classes:
        return 7
    return interval


_PATTERNS: Final[dict[str, Callable[[Bar, Part, _Place, np.random.Generator], int]]] = {
    "octaves": _octaves,
    "disco": _disco,
    "pedal": _pedal,
    "groove": _groove,
    "fifths": _fifths,
    "walking": _walking,
    "boogie": _boogie,
    "riff": _riff,
    "reggae": _riff,
    "funk": _riff,
    "metal": _riff,
}
"""Others play the root."""
