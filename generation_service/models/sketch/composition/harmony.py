"""Which chord sounds when: the loops of the sections, turnarounds, and the cadence before the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from generation_service.models.sketch.composition.form import STEPS_PER_BAR, Form, Section
from generation_service.models.sketch.composition.music_theory import Chord, Key, parse_chord
from generation_service.models.sketch.composition.voicing import Voicing, lead_voices

_CONTINUOUS: Final = frozenset({"head"})
"""The forms whose chords go on from section to section: every chorus is one round of the tune."""


@dataclass(frozen=True, slots=True)
class Span:
    """A chord and its place in the loop, in sixteenths."""

    start: int
    length: int
    chord: Chord


@dataclass(frozen=True, slots=True)
class Loop:
    """Chords that repeat."""

    spans: tuple[Span, ...]

    @property
    def steps(self) -> int:
        return self.spans[-1].start + self.spans[-1].length

    @property
    def chords(self) -> tuple[Chord, ...]:
        return tuple(span.chord for span in self.spans)


@dataclass(frozen=True, slots=True)
class ChordSpan:
    """A chord within one bar: from sixteenth `start`, for `length`, and the one after it."""

    start: int
    length: int
    begins: bool
    """Whether it begins here, rather than going on from the bar before."""
    total: int
    """From `start` to the end of the chord or of the section, in sixteenths."""
    chord: Chord
    following: Chord
    loop: Loop
    index: int
    """Its place in `loop`."""

    def voicing(self, low: int, kind: str) -> Voicing:
        """How a part plays it: MIDI pitches, ascending."""
        return lead_voices(self.loop.chords, low, kind)[self.index]


def build_loop(numerals: tuple[str, ...], key: Key, chord_bars: int) -> Loop:
    """A loop from Roman numerals. Each entry lasts `chord_bars` bars; "ii7 V7" are two chords that share them."""
    spans: list[Span] = []
    at = 0
    for entry in numerals:
        names = entry.split()
        length = chord_bars * STEPS_PER_BAR // len(names)
        for name in names:
            spans.append(Span(at, length, parse_chord(name, key.tonic)))
            at += length
    return Loop(tuple(spans))


@dataclass(frozen=True, slots=True)
class Harmony:
    """The chords of a piece."""

    form: Form
    loops: Mapping[str, Loop]
    """By the material of the section: A, B, C."""
    cadence: Loop
    """What sounds in the last bar."""
    is_continuous: bool

    @classmethod
    def for_form(cls, form: Form, kind: str, loops: Mapping[str, Loop], cadence: Chord) -> Harmony:
        return cls(form, loops, Loop((Span(0, STEPS_PER_BAR, cadence),)), kind in _CONTINUOUS)

    def in_bar(self, bar: int) -> tuple[ChordSpan, ...]:
        """The chords of a bar, in order."""
        section = self.form.section_of(bar)
        following = self._first_of(bar + 1)
        if self.form.end_frame is not None and bar == self.form.bars - 1 and bar >= 3:
            chord = self.cadence.spans[0].chord
            return (ChordSpan(0, STEPS_PER_BAR, True, STEPS_PER_BAR, chord, following, self.cadence, 0),)
        loop, offset = self._place(section, bar)
        remaining = (section.first_bar + section.bars - bar) * STEPS_PER_BAR
        found = []
        for index, span in enumerate(loop.spans):
            start, end = max(span.start, offset), min(span.start + span.length, offset + STEPS_PER_BAR)
            if start < end:
                within = end < offset + STEPS_PER_BAR
                upcoming = loop.spans[index + 1].chord if within else following
                total = min(span.start + span.length - start, remaining - (start - offset))
                begins = start == span.start or bar == section.first_bar
                found.append(ChordSpan(start - offset, end - start, begins, total, span.chord, upcoming, loop, index))
        return tuple(found)

    def at(self, bar: int, step: float) -> ChordSpan:
        """The chord at a sixteenth of a bar."""
        spans = self.in_bar(bar)
        return next((span for span in reversed(spans) if span.start <= step), spans[0])

    def _place(self, section: Section, bar: int) -> tuple[Loop, int]:
        loop = self.loops[section.material]
        first = section.first_bar
        if self.is_continuous and section.kind not in ("intro", "outro"):
            loop = self.loops["A"]
            intro = self.form.sections[0]
            first = intro.bars if intro.kind == "intro" else 0
        return loop, (bar - first) * STEPS_PER_BAR % loop.steps

    def _first_of(self, bar: int) -> Chord:
        if bar >= self.form.bars:  # After the last bar comes the closing chord, or a loop begins again.
            material = "A" if self.form.end_frame is not None else self.form.sections[0].material
            return self.loops[material].spans[0].chord
        loop, offset = self._place(self.form.section_of(bar), bar)
        return next(span.chord for span in loop.spans if span.start <= offset < span.start + span.length)
