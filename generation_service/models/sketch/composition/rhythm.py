"""The drum part: grooves, rolls, fills, builds and crashes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR, Form, Section
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.composition.style import VELOCITIES, Drum

_TOMS: Final = ("tom high", "tom high", "tom mid", "tom low")
_SNARES: Final = ("snare", "clap", "brush", "rim")


@dataclass(frozen=True, slots=True)
class Hit:
    """A drum hit at a (fractional) sixteenth of its bar."""

    step: float
    drum: Drum
    velocity: float


def drum_hits(plan: Plan, form: Form, section: Section, bar: int, variants: np.random.Generator) -> Iterator[Hit]:
    """The hits of one bar. `variants` must be seeded the same for all bars of sections with the same name."""
    if not plan.drums:
        return
    in_section = bar - section.first_bar
    is_last = in_section == section.bars - 1
    following = None if bar + 1 >= form.bars else form.section_of(bar + 1)
    fill_from = _fill_start(plan, section, is_last, following)
    if section.name in ("A", "B") and in_section == 0 and plan.style.crash and bar > 0:
        yield Hit(0, Drum("crash", (), 0.2, 0.15, send=0.2), 1.0)
    for drum in plan.drums:
        rhythm = drum.rhythms[int(variants.integers(len(drum.rhythms)))]
        if not _plays(plan, section, drum):
            continue
        offset = in_section * STEPS_PER_BAR % len(rhythm)
        for step in range(STEPS_PER_BAR):
            symbol = rhythm[offset + step]
            if symbol == "." or (step >= fill_from and not drum.sound.endswith(("hat", "ride", "shaker"))):
                continue
            if symbol == "r":
                for third in range(3):
                    yield Hit(step + third / 3, drum, VELOCITIES[symbol] * (0.8 + 0.1 * third))
            else:
                yield Hit(step, drum, VELOCITIES[symbol])
    yield from _fill(plan, fill_from)
    if section.name == "break" and plan.style.fill != "none":
        yield from _build(plan, section, in_section)


def _plays(plan: Plan, section: Section, drum: Drum) -> bool:
    if section.name in ("intro", "outro"):
        return drum.sound in plan.style.intro
    if section.name == "break":
        return drum.sound.endswith(("hat", "ride", "shaker")) and drum.energy <= 0.3
    return drum.energy <= section.energy


def _fill_start(plan: Plan, section: Section, is_last: bool, following: Section | None) -> int:
    """The sixteenth from which a fill replaces the groove; 16 if there is no fill."""
    if not (is_last and plan.style.fill != "none" and following):
        return STEPS_PER_BAR
    if following.name == "outro" or section.name == "break":
        return STEPS_PER_BAR
    return 8 if section.bars >= 8 and plan.style.fill == "toms" else 12


def _snare(plan: Plan) -> Drum:
    for ending in _SNARES:
        for drum in plan.drums:
            if drum.sound.endswith(ending):
                return drum
    return Drum("snare", (), 0.5, send=0.15)


def _fill(plan: Plan, start: int) -> Iterator[Hit]:
    if start >= STEPS_PER_BAR:
        return
    snare = _snare(plan)
    span = STEPS_PER_BAR - start
    if plan.style.fill == "hats":
        hat = next((drum for drum in plan.drums if drum.sound == "hat"), snare)
        for third in range(span * 2):
            yield Hit(start + third / 2, hat, 0.35 + 0.4 * third / (span * 2))
        yield Hit(15, snare, 0.6)
        return
    for index in range(span):
        level = 0.5 + 0.45 * index / span
        if plan.style.fill == "toms" and index % 4 != 0:
            sound = _TOMS[index * len(_TOMS) // span]
            yield Hit(start + index, Drum(sound, (), 0.5, 0.5 - 0.9 * index / span, send=0.12), level)
        elif index != 1:
            yield Hit(start + index, snare, level * 0.8)


def _build(plan: Plan, section: Section, in_section: int) -> Iterator[Hit]:
    """The build in the last two bars of a break: an accelerating roll and rising noise."""
    left = section.bars - in_section
    if left > 2 or plan.style.name in ("jazz", "lo-fi", "hip hop"):
        return
    snare = _snare(plan)
    every = 2 if left == 2 else 1
    for step in range(0, STEPS_PER_BAR - (2 if left == 1 else 0), every):
        progress = ((2 - left) * STEPS_PER_BAR + step) / (2 * STEPS_PER_BAR)
        yield Hit(step, snare, 0.15 + 0.5 * progress)
    if left == 1:
        yield Hit(0, Drum("riser", (), 0.08, send=0.3), 1.0)
