"""The arranger writes the piece bar by bar, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from generation_service.models.sketch.composition.form import Form, Section, build_form, build_loop_form
from generation_service.models.sketch.composition.harmony import Harmony
from generation_service.models.sketch.composition.music_theory import Chord, parse_chord
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.parts.bar import MAX_JITTER_FRAMES as MAX_JITTER_FRAMES
from generation_service.models.sketch.composition.parts.bar import Bar
from generation_service.models.sketch.composition.parts.bass_part import write_bass
from generation_service.models.sketch.composition.parts.chord_part import write_chords
from generation_service.models.sketch.composition.parts.drum_part import write_drums
from generation_service.models.sketch.composition.parts.lead_part import write_lead
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.composition.style import Part
from generation_service.models.sketch.composition.voicing import lead_voices, power_chord

_LAST_NOTE_FRAMES: Final = 400
"""No note begins this shortly before the closing chord."""
_STEMS: Final = {"chords": "chords", "pad": "chords", "figure": "chords", "bass": "bass", "lead": "melody"}
_CLOSING_LEVEL: Final = 0.95
_ROLL_SECONDS: Final = 0.022


@dataclass(slots=True)
class Arranger:
    """Turns a plan into notes. Every bar has its own random generators, so bars can be written in any order."""

    plan: Plan
    seed: int
    rate_hz: int
    form: Form
    harmony: Harmony

    @classmethod
    def for_length(cls, plan: Plan, seed: int, frames: int, rate_hz: int) -> Arranger:
        style = plan.style
        form = build_form(
            frames, plan.bpm, rate_hz, style.ring_seconds, plan.drive, style.form,
            solo=style.solo and plan.lead is not None,
        )  # fmt: skip
        return cls.for_form(plan, seed, form, rate_hz)

    @classmethod
    def for_loop(cls, plan: Plan, seed: int, bars: int, frames: int, rate_hz: int) -> Arranger:
        """An arranger of `bars` bars that repeat without a seam, in exactly `frames` frames."""
        return cls.for_form(plan, seed, build_loop_form(bars, frames), rate_hz)

    @classmethod
    def for_form(cls, plan: Plan, seed: int, form: Form, rate_hz: int) -> Arranger:
        cadence = parse_chord(plan.style.cadence[0 if plan.key.minor else 1], plan.key.tonic)
        return cls(plan, seed, rate_hz, form, Harmony.for_form(form, plan.style.form, plan.loops, cadence))

    def write_bar(self, number: int) -> list[Note]:
        """The notes that start in a bar, in no particular order. The bar after the last is the closing chord."""
        notes = list(self._write_notes(number)) if number < self.form.bars else []
        end = self.form.end_frame
        if end is not None:
            last = end - _LAST_NOTE_FRAMES
            notes = [replace(n, gate=min(n.gate, end - n.start)) for n in notes if n.start < last]
            if number == self.form.bars:
                notes.extend(self._closing_chord(end))
        return notes

    def _write_notes(self, number: int) -> Iterator[Note]:
        bar = Bar(self.plan, self.form, self.harmony, self.seed, self.rate_hz, number)
        yield from write_drums(bar)
        for role in ("chords", "pad", "figure", "bass", "lead"):
            part = self.plan.part(role)
            if part is None or not self._plays(bar.section, role, part):
                continue
            if role == "bass":
                yield from write_bass(bar, part)
            elif role == "lead":
                yield from write_lead(bar, part)
            else:
                yield from write_chords(bar, part, role)

    def _plays(self, section: Section, role: str, part: Part) -> bool:
        plan, style = self.plan, self.plan.style
        is_solo = not plan.drums and plan.chords is None
        if is_solo:
            return True
        if section.kind in ("intro", "outro"):
            return role in style.intro or (role == "bass" and section.kind == "outro" and not style.risers)
        if section.kind == "break":
            rolling = role == "bass" and (part.pattern in ("walking", "groove") or not plan.drums)
            return role in style.breakdown or rolling
        if section.kind == "build" and style.risers and role == "bass":
            return False
        if role == "lead":
            return section.energy >= style.lead_energy or part.energy < 0.0
        return part.energy <= section.energy

    def _closing_chord(self, end: int) -> Iterator[Note]:
        """The closing chord, played by all parts and left to ring."""
        plan, style = self.plan, self.plan.style
        chord = parse_chord(("i" if plan.key.minor else "I") + style.close_colour, plan.key.tonic)
        hold = self.form.total_frames - end
        grid = 4.0 * end / self.form.bar_frames
        for role, stem in _STEMS.items():
            part = plan.part(role)
            if part is None or (role == "figure" and plan.chords is not None):
                continue
            for number, pitches in enumerate(self._closing_pitches(role, part, chord)):
                late = int(number * _ROLL_SECONDS * self.rate_hz)
                gain = part.gain * _CLOSING_LEVEL
                yield Note(
                    end + late, max(1, hold - late), part.sound, gain, pitches, part.pan, part.send, part.ducked,
                    stem=stem, velocity=0.9, echo=part.echo, grid=grid,
                )  # fmt: skip
        kick = next((drum for drum in plan.drums if drum.sound.endswith("kick")), None)
        if kick is not None:
            yield Note(end, 0, kick.sound, kick.gain, pan=kick.pan, send=kick.send, velocity=1.0, grid=grid)
            cymbal = style.crash or "open hat"
            yield Note(end, 0, cymbal, 0.2, pan=0.15, send=0.25, velocity=0.8, grid=grid)

    def _closing_pitches(self, role: str, part: Part, chord: Chord) -> list[tuple[int, ...]]:
        """The chords or tones of a part, one after another."""
        if role in ("bass", "lead"):
            return [(chord.bass(part.low),)]
        if part.pattern == "power":
            return [power_chord(chord, part.low)]
        return [lead_voices((chord,), part.low, "close" if part.voicing == "rootless" else part.voicing)[0]]
