"""A bar that is being written: its place in the piece, its chords, and how its players keep time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR, Form, Section
from generation_service.models.sketch.composition.harmony import ChordSpan, Harmony
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.composition.style import ARTICULATIONS, VELOCITIES, Part

MAX_JITTER_FRAMES: Final = 640
"""How far before its bar a note may start at most."""
PHRASE_BARS: Final = 4

_SHORTEST_FRAMES: Final = 600
_TURN_CHANCE: Final = 0.5
_CRESCENDO: Final = (0.7, 1.0)


@dataclass(frozen=True, slots=True)
class Hit:
    """A hit of a rhythm: a (fractional) sixteenth, the sixteenths until the next one, and how it is played."""

    step: float
    length: float
    velocity: float
    articulation: str = ""


@dataclass(slots=True)
class Bar:
    """One bar. It is written without knowledge of the others, so bars can be written in any order."""

    plan: Plan
    form: Form
    harmony: Harmony
    seed: int
    rate_hz: int
    number: int
    section: Section = field(init=False)
    chords: tuple[ChordSpan, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.section = self.form.section_of(self.number)
        self.chords = self.harmony.in_bar(self.number)

    @property
    def in_section(self) -> int:
        return self.number - self.section.first_bar

    @property
    def left(self) -> int:
        """The bars of the section after this one."""
        return self.section.bars - self.in_section - 1

    @property
    def following(self) -> Section | None:
        return self.form.following(self.number)

    def random(self, purpose: str, number: int = 0) -> np.random.Generator:
        """A generator of random numbers for one purpose. The same purpose and number give the same numbers."""
        return np.random.default_rng([self.seed, number, *purpose.encode()])

    def feel(self, part: str) -> np.random.Generator:
        """The generator of a player's inaccuracies in this bar."""
        return self.random(f"feel {part}", self.number)

    def chord_at(self, step: float) -> ChordSpan:
        return next((span for span in reversed(self.chords) if span.start <= step), self.chords[0])

    @property
    def intensity(self) -> float:
        """How hard the section is played: 0.7 … 1. A build becomes louder."""
        if self.section.kind == "build":
            low, high = _CRESCENDO
            return low + (high - low) * (self.in_section + 1) / self.section.bars
        return 0.8 + 0.2 * self.section.energy

    def frame(self, step: float, feel: np.random.Generator, late_ms: float = 0.0, looseness: float = 1.0) -> int:
        """The frame of a step, with swing and the timing of a human player."""
        style = self.plan.style
        deviation = style.human_seconds * self.rate_hz * looseness
        jitter = late_ms / 1000.0 * self.rate_hz + float(feel.standard_normal()) * deviation
        jitter = max(-MAX_JITTER_FRAMES, min(MAX_JITTER_FRAMES, jitter))
        return max(0, self.form.frame(self.number, self.swung(step)) + int(jitter))

    def swung(self, step: float) -> float:
        """The step with swing: the first half of each pair of units is stretched, the second compressed."""
        style = self.plan.style
        if not style.swing:
            return step
        unit = 2.0 if style.swing_eighths else 1.0
        pair, within = divmod(step, 2.0 * unit)
        late = style.swing * unit
        if within < unit:
            return pair * 2.0 * unit + within * (unit + late) / unit
        return pair * 2.0 * unit + unit + late + (within - unit) * (unit - late) / unit

    def rhythm(self, part: Part, role: str) -> str:
        """The rhythm of a part in this section; every fourth bar may have another one."""
        choice = self.random(f"{role} {self.section.material}")
        number = int(choice.integers(len(part.rhythms)))
        if self.in_section % PHRASE_BARS == PHRASE_BARS - 1 and choice.random() < _TURN_CHANCE:
            number = (number + 1) % len(part.rhythms)
        return part.rhythms[number]

    def hits(self, rhythm: str) -> Iterator[Hit]:
        """The hits of a rhythm in this bar. Its length is a multiple of a bar, counted from the section's start."""
        offset = self.in_section * STEPS_PER_BAR % len(rhythm)
        ends = [at for at, symbol in enumerate(rhythm) if symbol != "."] + [len(rhythm)]
        remaining = (self.left + 1) * STEPS_PER_BAR
        for at, following in pairwise(ends):
            symbol = rhythm[at]
            if symbol != "_" and offset <= at < offset + STEPS_PER_BAR:
                step = at - offset
                length = min(following - at, remaining - step)
                yield Hit(step, length, VELOCITIES[symbol], ARTICULATIONS.get(symbol, ""))

    def note(
        self, part: Part, stem: str, hit: Hit, pitches: tuple[int, ...], feel: np.random.Generator, *,
        glide: int = 0, level: float = 1.0, lfo_hz: float = 0.0, late_ms: float = 0.0,
    ) -> Note:  # fmt: skip
        """A note of a pitched part."""
        start = self.frame(hit.step, feel, late_ms)
        steps = 0.6 if hit.articulation == "mute" else hit.length * part.gate
        gate = int(steps * self.form.bar_frames / STEPS_PER_BAR)
        velocity = min(1.0, hit.velocity * self.intensity * (1.0 - 0.1 * float(feel.random())))
        return Note(
            start, max(_SHORTEST_FRAMES, gate), part.sound, part.gain * velocity * level, pitches, part.pan, part.send,
            part.ducked, glide, stem, velocity, hit.articulation, part.echo, lfo_hz,
            STEPS_PER_BAR / 4 * self.number + hit.step / 4,
        )  # fmt: skip
