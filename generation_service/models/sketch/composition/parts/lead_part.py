"""The melody: verses, choruses and solos, and how they are phrased."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from generation_service.models.sketch.composition.form import STEPS_PER_BAR
from generation_service.models.sketch.composition.melody import PERIOD_BARS, MelodyNote, build_period, resolve_pitch
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.parts.bar import Bar, Hit
from generation_service.models.sketch.composition.style import Part

_LIFT: Final = {"chorus": 2, "solo": 3}
"""How many scale steps a chorus lies above a verse."""
_SOLO_CELLS: Final = (
    "X.xxx.xxX.x.x_..",
    "xxxxX.x.xxx.X...",
    "..xxxxX.x.xxX.x.",
    "X..xx.x.X.xxx_..",
    "x.xxxxxxX...x_..",
)
_GRACE_MS: Final = 60.0
_GRACED: Final = frozenset({"blues", "jazz", "funk", "folk", "bossa nova"})
"""The genres whose melodies slide into some notes from the half-step below."""
_GRACE_CHANCE: Final = 0.16


def write_lead(bar: Bar, part: Part) -> Iterator[Note]:
    """The melody notes of a bar."""
    feel = bar.feel("lead")
    kind, style = bar.section.kind, bar.plan.style
    is_solo = kind == "solo"
    material = bar.section.material if not is_solo else f"solo {bar.section.turn}"
    period = build_period(
        bar.random(f"melody {material}"),
        _SOLO_CELLS if is_solo and style.lead_hold <= 8 else style.cells,
        style.lead_hold,
        _LIFT.get(kind, 0),
    )
    # The last bar of a section closes the period, however many bars it has.
    window = (PERIOD_BARS - 1 if bar.left == 0 else bar.in_section % PERIOD_BARS) * STEPS_PER_BAR
    low = part.low + round(2 * bar.plan.brightness) - 5
    grace = bar.random("grace", bar.number)
    for tone in period:
        if not window <= tone.step < window + STEPS_PER_BAR:
            continue
        tone = _closing(bar, tone)
        step = tone.step - window
        pitch = resolve_pitch(tone, bar.plan.key, bar.chord_at(step).chord, low, style.scale)
        while pitch > part.low + 21:
            pitch -= 12
        hit = Hit(step, tone.length * 0.95, tone.accent)
        note = bar.note(part, "melody", hit, (pitch,), feel)
        if style.name in _GRACED and tone.length >= 2 and grace.random() < _GRACE_CHANCE:
            yield from _graced(bar, note, pitch)
        else:
            yield note


def _closing(bar: Bar, tone: MelodyNote) -> MelodyNote:
    """In the last bar before the closing chord, the melody is calm."""
    if bar.form.end_frame is not None and bar.number == bar.form.bars - 1 and tone.step % STEPS_PER_BAR >= 8:
        return replace(tone, accent=0.8 * tone.accent)
    return tone


def _graced(bar: Bar, note: Note, pitch: int) -> Iterator[Note]:
    """A short note from the half-step below, then the note itself, tied to it."""
    frames = int(_GRACE_MS / 1000.0 * bar.rate_hz)
    yield replace(note, pitches=(pitch - 1,), gate=frames, gain=0.6 * note.gain, velocity=0.6 * note.velocity)
    yield replace(note, start=note.start + frames, gate=max(frames, note.gate - frames), articulation="slide")
