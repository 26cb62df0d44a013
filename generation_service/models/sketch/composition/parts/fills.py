"""Fills and builds: what the drums play at the end of a section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.parts.bar import Bar
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.composition.style import VELOCITIES, Drum

_SNARES: Final = ("snare", "clap", "cross stick", "brush", "rim", "snap")

# One character a sixteenth: s and S are the snare, soft and loud; h, m, l the toms; k the kick; g a ghost note.
_TOM_FILLS: Final = ("SShhmmll", "S.hhm.ll", "ShSmSlSl", "s.s.hhll", "SgshhmlS", "hhh.mml.", "S..h..m.", "SshhmmlS")
_SNARE_FILLS: Final = ("S.ssS.sS", "..ssgsSS", "S..S..Ss", "sgsSgsSS", "k.s.k.SS", "SgSgSSSS")
_BREAK_FILLS: Final = ("S.gSk.SS", "kkS.gSgS", "S.SkgSkS", "gSk.SgSS", "S.kSS.kS")
_BRUSH_FILLS: Final = ("s.gs.gs.", "S.gs.gsS", "s.s.gsgs", "gs.gS.ks")
_TIMBALE_FILLS: Final = ("..hh.hhl", "h.hh.h.S", "hhhl.hhl", "S.h.hh.l")
_STOP_FILLS: Final = ("......sS", ".......S", "S.....SS", "k......S")
_FILLS: Final = {
    "toms": _TOM_FILLS,
    "snare": _SNARE_FILLS,
    "breaks": _BREAK_FILLS,
    "brushes": _BRUSH_FILLS,
    "timbales": _TIMBALE_FILLS,
    "stop": _STOP_FILLS,
}
_TOMS: Final = {"h": ("tom high", -0.35), "m": ("tom mid", 0.0), "l": ("tom low", 0.4)}
_TIMBALES: Final = {"h": ("timbale", -0.25), "m": ("timbale", 0.1), "l": ("conga low", 0.3)}


@dataclass(frozen=True, slots=True)
class DrumHit:
    """A drum hit at a (fractional) sixteenth of its bar."""

    step: float
    drum: Drum
    velocity: float
    articulation: str = ""


def find_snare(plan: Plan) -> Drum:
    """The snare of the kit, or what stands for it."""
    for ending in _SNARES:
        for drum in plan.drums:
            if drum.sound.endswith(ending):
                return drum
    return Drum("snare", (), 0.5, send=0.15)


def write_fill(bar: Bar, start: int, end: int) -> Iterator[DrumHit]:
    """The fill from sixteenth `start` to sixteenth `end`, louder towards its end."""
    if start >= end:
        return
    random = bar.random("fill", bar.number)
    if bar.plan.style.fill == "hats":
        yield from _hat_fill(bar, start, end, random)
        return
    snare, kick = find_snare(bar.plan), _find_kick(bar.plan)
    toms = _TIMBALES if bar.plan.style.fill == "timbales" else _TOMS
    patterns = _FILLS[bar.plan.style.fill]
    pattern = patterns[int(random.integers(len(patterns)))]
    span = end - start
    for index, symbol in enumerate(pattern[-span:]):
        level = 0.62 + 0.38 * index / span
        step = start + index
        if symbol in toms:
            sound, pan = toms[symbol]
            yield DrumHit(step, Drum(sound, (), 1.05 * snare.gain, pan, send=0.12), level)
        elif symbol in "sS":
            yield DrumHit(step, snare, level * (0.95 if symbol == "S" else 0.6))
        elif symbol == "g":
            yield DrumHit(step, snare, VELOCITIES["g"], "ghost")
        elif symbol == "k" and kick is not None:
            yield DrumHit(step, kick, 0.85)


def write_build(bar: Bar) -> Iterator[DrumHit]:
    """The roll before a drop: eighths, then sixteenths, then a moment of silence."""
    snare = find_snare(bar.plan)
    every = 2 if bar.left else 1
    end = STEPS_PER_BAR if bar.left else STEPS_PER_BAR - 2
    for step in range(0, end, every):
        progress = ((0 if bar.left else STEPS_PER_BAR) + step) / (2 * STEPS_PER_BAR)
        yield DrumHit(step, snare, 0.2 + 0.55 * progress)


def _find_kick(plan: Plan) -> Drum | None:
    return next((drum for drum in plan.drums if drum.sound.endswith("kick")), None)


def _hat_fill(bar: Bar, start: int, end: int, random: np.random.Generator) -> Iterator[DrumHit]:
    """A roll of the hi-hat in halves or thirds of a sixteenth, and a snare before the beat."""
    hat = next((drum for drum in bar.plan.drums if drum.sound == "hat"), find_snare(bar.plan))
    parts = int(random.choice((2, 3)))
    count = (end - start) * parts
    for number in range(count):
        if parts == 3 and number % 12 >= 9:
            continue
        yield DrumHit(start + number / parts, hat, 0.35 + 0.45 * number / count)
    yield DrumHit(end - 1, find_snare(bar.plan), 0.6)
    if random.random() < 0.5:
        yield DrumHit(end - 2, find_snare(bar.plan), 0.4)
