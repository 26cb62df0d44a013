"""The drum part: grooves with variations, and what leads from one section to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.parts.bar import PHRASE_BARS, Bar
from generation_service.models.sketch.composition.parts.fills import DrumHit, find_snare, write_build, write_fill
from generation_service.models.sketch.composition.style import ARTICULATIONS, ROLLS, VELOCITIES, Drum

_CYMBALS: Final = ("hat", "ride", "shaker", "tambourine")
_RISE_SECONDS: Final = 2.0
"""How long the sound of a riser or of a reversed cymbal lasts."""
_LOOKAHEAD_BARS: Final = 4
_CRASH_GAIN: Final = 0.2
_TIGHT: Final = 0.35
"""Kicks are played more exactly than the rest."""
_TURN_CHANCE: Final = 0.55


def write_drums(bar: Bar) -> Iterator[Note]:
    """The notes of the drums in a bar; none if the piece has no drums."""
    if not bar.plan.drums:
        return
    feel = bar.feel("drums")
    for hit in _hits(bar):
        yield _note(bar, hit, feel)
    yield from _rises(bar)


def _note(bar: Bar, hit: DrumHit, feel: np.random.Generator) -> Note:
    drum = hit.drum
    is_kick = drum.sound.endswith("kick")
    start = bar.frame(hit.step, feel, drum.late_ms, _TIGHT if is_kick else 1.0)
    velocity = min(1.0, hit.velocity * (1.0 - 0.12 * float(feel.random())) * (1.0 if is_kick else bar.intensity))
    articulation = hit.articulation or ("ghost" if velocity < 0.3 else "")
    return Note(
        start, 0, drum.sound, drum.gain * velocity, pan=drum.pan, send=drum.send, stem="drums", velocity=velocity,
        articulation=articulation, grid=4.0 * bar.number + hit.step / 4,
    )  # fmt: skip


def _hits(bar: Bar) -> Iterator[DrumHit]:
    kind, style = bar.section.kind, bar.plan.style
    fill_from, fill_to = _fill_span(bar)
    is_building = _is_building(bar)
    if style.crash and bar.in_section == 0 and bar.number > 0 and kind in ("verse", "chorus", "solo"):
        level = 1.0 if kind != "verse" else 0.6
        yield DrumHit(0, Drum(style.crash, (), _CRASH_GAIN, 0.15, send=0.2), level)
    if style.risers and bar.in_section == 0 and bar.number > 0 and kind == "chorus":
        yield DrumHit(0, Drum("impact", (), 0.3, send=0.25), 1.0)
    variants = bar.random(f"kit {bar.section.material}")
    turns = bar.random("turn", bar.number)
    is_turn = bar.in_section % PHRASE_BARS == PHRASE_BARS - 1
    for drum in bar.plan.drums:
        choice, other = int(variants.integers(len(drum.rhythms))), float(turns.random())
        if not _plays(bar, drum, is_building):
            continue
        if is_turn and other < _TURN_CHANCE:  # Every fourth bar some drums play something else.
            choice = (choice + 1) % len(drum.rhythms)
        keeps_time = drum.sound.endswith(_CYMBALS) and style.fill not in ("stop", "toms")
        yield from _groove(bar, drum, drum.rhythms[choice], STEPS_PER_BAR if keeps_time else fill_from)
    yield from write_fill(bar, fill_from, fill_to)
    if is_building:
        yield from write_build(bar)
    elif is_turn and fill_from == STEPS_PER_BAR and kind in ("verse", "chorus", "solo"):
        yield from _pick_up(bar, turns)


def _groove(bar: Bar, drum: Drum, rhythm: str, end: int) -> Iterator[DrumHit]:
    offset = bar.in_section * STEPS_PER_BAR % len(rhythm)
    for step in range(end):
        symbol = rhythm[offset + step]
        if symbol == ".":
            continue
        rolls = ROLLS.get(symbol, 1)
        for number in range(rolls):
            velocity = VELOCITIES[symbol] * (1.0 if rolls == 1 else 0.75 + 0.12 * number)
            yield DrumHit(step + number / rolls, drum, velocity, ARTICULATIONS.get(symbol, ""))


def _plays(bar: Bar, drum: Drum, is_building: bool) -> bool:
    section, style = bar.section, bar.plan.style
    if section.kind in ("intro", "outro"):
        return drum.sound in style.intro
    if section.kind == "break":
        return drum.sound in style.breakdown or (drum.sound.endswith(_CYMBALS) and drum.energy <= 0.3)
    if is_building and (drum.sound == find_snare(bar.plan).sound or (bar.left == 0 and drum.sound.endswith("kick"))):
        return False
    return drum.energy <= section.energy


def _is_building(bar: Bar) -> bool:
    """Whether a roll leads to the next section: in the last two bars of a build, or of a break before a drop."""
    if bar.plan.style.form not in ("club", "song") or not bar.plan.style.risers or bar.left > 1:
        return False
    if bar.section.kind == "build":
        return True
    upcoming = bar.section.first_bar + bar.section.bars
    return bar.section.kind == "break" and upcoming < bar.form.bars and bar.form.section_of(upcoming).kind == "chorus"


def _fill_span(bar: Bar) -> tuple[int, int]:
    """The sixteenths in which a fill replaces the groove; (16, 16) if there is no fill."""
    following, style = bar.following, bar.plan.style
    if style.fill == "none" or _is_building(bar):
        return STEPS_PER_BAR, STEPS_PER_BAR
    if following is None:
        return _last_fill(bar)
    if following.kind in ("outro", "break") and style.fill != "toms":
        return STEPS_PER_BAR, STEPS_PER_BAR
    is_long = bar.section.bars >= 4 and bar.section.kind != "intro" and bar.section.kind != "break"
    start = 8 if is_long and bar.random("fill length", bar.number).random() < 0.6 else 12
    return start, STEPS_PER_BAR


def _last_fill(bar: Bar) -> tuple[int, int]:
    """A fill that leads to the closing chord, which falls on the next beat 1, or on beat 3 of this bar."""
    end = bar.form.end_frame
    if end is None or bar.number != bar.form.bars - 1 or bar.section.kind == "outro" or bar.plan.style.risers:
        return STEPS_PER_BAR, STEPS_PER_BAR
    to = round((end / bar.form.bar_frames - bar.number) * STEPS_PER_BAR)
    return to - 4, to


def _pick_up(bar: Bar, random: np.random.Generator) -> Iterator[DrumHit]:
    """One or two soft hits of the snare before the next four bars."""
    if bar.plan.style.fill == "none" or random.random() > _TURN_CHANCE:
        return
    snare = find_snare(bar.plan)
    steps = ((14, 15), (15,), (13, 15), (11, 14))[int(random.integers(4))]
    for step in steps:
        yield DrumHit(step, snare, 0.34 + 0.2 * float(random.random()))


def _rises(bar: Bar) -> Iterator[Note]:
    """Noise that ends exactly where a drop begins; it may begin some bars before."""
    if not bar.plan.style.risers:
        return
    here, after = bar.form.frame(bar.number), bar.form.frame(bar.number + 1)
    for number in range(bar.number + 1, min(bar.form.bars, bar.number + 1 + _LOOKAHEAD_BARS)):
        section = bar.form.section_of(number)
        if section.first_bar != number or section.kind != "chorus":
            continue
        start = bar.form.frame(number) - round(_RISE_SECONDS * bar.rate_hz)
        if here <= start < after:
            place = 4.0 * start / bar.form.bar_frames
            yield Note(start, 0, "riser", 0.08, send=0.3, stem="drums", velocity=0.7, grid=place)
            yield Note(start, 0, "reverse crash", 0.07, send=0.2, stem="drums", velocity=0.7, grid=place)
