"""The accompaniment: held chords, rhythms, strums, rolls and arpeggios."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.harmony import ChordSpan
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.parts.bar import Bar, Hit
from generation_service.models.sketch.composition.style import Part
from generation_service.models.sketch.composition.voicing import Voicing, power_chord
from generation_service.models.sketch.pads import PADS

HELD: Final = "X..............."
"""The rhythm of chords that are held as long as they last."""

_STRUM_MS: Final = 11.0
"""From string to string."""
_ROLL_MS: Final = 22.0
_POWER_LEVELS: Final = (0.68, 0.34, 0.6)
_TOP_STRINGS: Final = 3
"""What an upstroke hits."""
# Arpeggios as indices into the tones of the chord, from its lowest; those above the chord are an octave higher.
_ARPEGGIOS: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "up": ((0, 1, 2, 3), (0, 1, 2, 4), (0, 2, 1, 3)),
    "wave": ((0, 1, 2, 3, 4, 3, 2, 1), (0, 2, 1, 3, 2, 4, 3, 1), (4, 3, 2, 1, 0, 1, 2, 3)),
    "alberti": ((0, 2, 1, 2), (0, 2, 1, 2, 0, 2, 1, 3)),
    "travis": ((0, 3, 1, 2, 0, 3, 1, 2), (0, 2, 1, 3, 0, 2, 1, 2), (0, 3, 1, 3, 0, 2, 1, 3)),
    "banjo": ((2, 1, 3, 0, 2, 1, 3, 2), (0, 1, 3, 2, 1, 3, 0, 1)),
}


def write_chords(bar: Bar, part: Part, role: str) -> Iterator[Note]:
    """The notes of an accompanying part in a bar. `role` is chords, pad or figure."""
    feel = bar.feel(role)
    rhythm = bar.rhythm(part, role)
    if rhythm == HELD or part.sound in PADS:
        yield from _held(bar, part, feel)
        return
    arpeggio = None
    if part.pattern in _ARPEGGIOS:
        lines = _ARPEGGIOS[part.pattern]
        arpeggio = lines[int(bar.random(f"{role} arpeggio {bar.section.material}").integers(len(lines)))]
    for index, hit in enumerate(bar.hits(rhythm)):
        span = bar.chord_at(hit.step)
        hit = _cut(hit, span)
        if arpeggio is not None:
            yield _arpeggio_note(bar, part, hit, span, arpeggio, index, feel)
        elif part.pattern == "power":
            yield from _power(bar, part, hit, span, feel)
        elif part.pattern in ("strum", "roll"):
            yield from _strum(bar, part, hit, _tones(bar, part, span), feel)
        else:
            yield bar.note(part, "chords", hit, _tones(bar, part, span), feel)


def _tones(bar: Bar, part: Part, span: ChordSpan) -> Voicing:
    kind = part.voicing
    if kind == "rootless" and bar.plan.bass is None:
        kind = "close"  # Without a bass, nobody else plays the root.
    return span.voicing(part.low, kind)


def _cut(hit: Hit, span: ChordSpan) -> Hit:
    """A note ends where its chord does."""
    end = span.start + span.total
    return replace(hit, length=max(0.5, min(hit.length, end - hit.step)))


def _held(bar: Bar, part: Part, feel: np.random.Generator) -> Iterator[Note]:
    for span in bar.chords:
        if span.begins:
            hit = Hit(span.start, span.total, 1.0)
            tones = _tones(bar, part, span)
            if part.pattern in ("roll", "strum"):
                yield from _strum(bar, part, hit, tones, feel)
            else:
                yield bar.note(part, "chords", hit, tones, feel)


def _strum(bar: Bar, part: Part, hit: Hit, tones: Voicing, feel: np.random.Generator) -> Iterator[Note]:
    """The strings one after another: a downstroke from the lowest on the beat, an upstroke of the highest off it."""
    is_roll = part.pattern == "roll"
    is_up = not is_roll and int(hit.step) % 4 != 0
    strings = tones[::-1][:_TOP_STRINGS] if is_up else tones
    if hit.articulation == "mute":
        strings = strings[-_TOP_STRINGS:]
    gap = (_ROLL_MS if is_roll else _STRUM_MS) * (0.7 if is_up else 1.0) / 1000.0 * bar.rate_hz
    first = bar.note(part, "chords", hit, (strings[0],), feel)
    level = 1.1 / len(tones) ** 0.5
    for number, pitch in enumerate(strings):
        fades = 1.0 - 0.06 * number
        yield replace(
            first, start=first.start + int(number * gap), pitches=(pitch,), gain=first.gain * level * fades,
            velocity=first.velocity * fades,
        )  # fmt: skip


def _power(bar: Bar, part: Part, hit: Hit, span: ChordSpan, feel: np.random.Generator) -> Iterator[Note]:
    """Root, fifth and octave, of which the fifth is softer: distortion adds its own. A palm mute is the root alone."""
    pitches = power_chord(span.chord, part.low)
    if hit.articulation == "mute":
        yield bar.note(part, "chords", replace(hit, length=1), pitches[:1], feel)
        return
    whole = bar.note(part, "chords", hit, pitches, feel)
    for pitch, level in zip(pitches, _POWER_LEVELS, strict=True):
        yield replace(whole, pitches=(pitch,), gain=whole.gain * level)


def _arpeggio_note(
    bar: Bar, part: Part, hit: Hit, span: ChordSpan, line: tuple[int, ...], index: int, feel: np.random.Generator
) -> Note:
    tones = _tones(bar, part, span)
    octave, place = divmod(line[index % len(line)], len(tones))
    pitch = tones[place] + 12 * octave
    if part.pattern == "travis" and line[index % len(line)] < 2 and int(hit.step) % 4 == 0:
        root = span.chord.bass(part.low - 5)
        pitch = root if int(hit.step) % 8 == 0 else root + 7  # The thumb: root and fifth.
    return bar.note(part, "chords", hit, (pitch,), feel)
