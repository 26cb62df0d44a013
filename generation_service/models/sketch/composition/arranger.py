"""The arranger writes the piece bar by bar, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from generation_service.models.sketch.composition.form import STEPS_PER_BAR, Form, Section, build_form
from generation_service.models.sketch.composition.melody import PHRASE_BARS, build_phrase, resolve_pitch
from generation_service.models.sketch.composition.music_theory import Chord, parse_chord
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.composition.rhythm import drum_hits
from generation_service.models.sketch.composition.style import VELOCITIES, Part
from generation_service.models.sketch.pads import PADS

MAX_JITTER_FRAMES: Final = 640
"""How far before its bar a note may start at most."""

_SLOW_RING_SECONDS: Final = 3.2
_RING_SECONDS: Final = 1.5
_ECHO_LEVEL: Final = 0.3
_STEMS: Final = {"chords": "chords", "pad": "chords", "bass": "bass", "lead": "melody"}


@dataclass(slots=True)
class Arranger:
    """Turns a plan into notes. Every bar has its own random generators, so bars can be written in any order."""

    plan: Plan
    seed: int
    rate_hz: int
    form: Form

    @classmethod
    def for_length(cls, plan: Plan, seed: int, frames: int, rate_hz: int) -> Arranger:
        slow = plan.style.name in ("ambient", "classical")
        ring = _SLOW_RING_SECONDS if slow else _RING_SECONDS
        return cls(plan, seed, rate_hz, build_form(frames, plan.bpm, rate_hz, ring, plan.drive))

    def write_bar(self, number: int) -> list[Note]:
        """The notes that start in a bar, in no particular order. The bar after the last is the closing chord."""
        notes = list(self._write_notes(number)) if number < self.form.bars else []
        end = self.form.end_frame
        if end is not None:
            notes = [replace(n, gate=min(n.gate, end - n.start)) for n in notes if n.start < end - 400]
            if number == self.form.bars:
                notes.extend(self._closing_chord(end))
        return notes

    def _write_notes(self, number: int) -> Iterator[Note]:
        section = self.form.section_of(number)
        timing = self._generator("feel", number)
        yield from self._drums(section, number, timing)
        for role in ("chords", "pad", "bass", "lead"):
            part: Part | None = getattr(self.plan, role)
            if part is None or not self._plays(section, role, part):
                continue
            write_part = {"bass": self._bass, "lead": self._lead}.get(role, self._chords)
            for note in write_part(part, section, number, timing):
                yield replace(note, stem=_STEMS[role])

    def _generator(self, purpose: str, number: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, *purpose.encode()])

    def _plays(self, section: Section, role: str, part: Part) -> bool:
        is_solo = not self.plan.drums and self.plan.chords is None
        if section.name in ("intro", "outro"):
            return role in self.plan.style.intro or is_solo
        if role == "lead":
            return section.energy >= self.plan.style.lead_energy or (part.energy == 0.0 and section.name != "break")
        if section.name == "break":
            rolling = role == "bass" and self.plan.style.bass_style in ("walking", "groove")
            return role in ("chords", "pad") or rolling or not self.plan.drums
        return part.energy <= section.energy

    def _chord(self, section: Section, bar: int) -> Chord:
        return self.plan.loop[(bar - section.first_bar) // self.plan.style.chord_bars % len(self.plan.loop)]

    def _start_frame(self, bar: int, step: float, timing: np.random.Generator) -> int:
        """The frame of a step, with swing and the timing inaccuracy of a human player."""
        style = self.plan.style
        unit = 2.0 if style.swing_eighths else 1.0
        late = style.swing * unit * (int(step / unit) % 2)
        jitter = float(timing.standard_normal()) * style.human_seconds * self.rate_hz
        jitter = max(-MAX_JITTER_FRAMES, min(MAX_JITTER_FRAMES, jitter))
        return max(0, self.form.frame(bar, step + late) + int(jitter))

    def _drums(self, section: Section, bar: int, timing: np.random.Generator) -> Iterator[Note]:
        for hit in drum_hits(self.plan, self.form, section, bar, self._generator(f"kit {section.name}")):
            drum = hit.drum
            dynamics = 1.0 - 0.12 * float(timing.random())
            yield Note(
                self._start_frame(bar, hit.step, timing), 0, drum.sound, drum.gain * hit.velocity * dynamics,
                pan=drum.pan, send=drum.send,
            )  # fmt: skip

    def _hits(self, part: Part, section: Section, bar: int, role: str) -> Iterator[tuple[int, int, float]]:
        """The hits of a part: (step in the bar, sixteenths until the next hit, velocity)."""
        choice = self._generator(f"{role} {section.name}")
        rhythm = part.rhythms[int(choice.integers(len(part.rhythms)))]
        rhythm = rhythm.ljust(self.plan.style.chord_bars * STEPS_PER_BAR, ".") if role == "pad" else rhythm
        offset = (bar - section.first_bar) * STEPS_PER_BAR % len(rhythm)
        onsets = [at for at, symbol in enumerate(rhythm) if symbol in VELOCITIES] + [len(rhythm)]
        remaining = (section.first_bar + section.bars - bar) * STEPS_PER_BAR
        for at, following in pairwise(onsets):
            if offset <= at < offset + STEPS_PER_BAR:
                step = at - offset
                yield step, min(following - at, remaining - step), VELOCITIES[rhythm[at]]

    def _note(
        self, part: Part, bar: int, step: int, length: float, velocity: float,
        pitches: tuple[int, ...], timing: np.random.Generator, glide: int = 0,
    ) -> Note:  # fmt: skip
        start = self._start_frame(bar, step, timing)
        gate = int(length * part.gate * self.form.bar_frames / STEPS_PER_BAR)
        gain = part.gain * velocity * (1.0 - 0.08 * float(timing.random()))
        return Note(start, max(600, gate), part.sound, gain, pitches, part.pan, part.send, part.ducked, glide)

    def _chords(self, part: Part, section: Section, bar: int, timing: np.random.Generator) -> Iterator[Note]:
        chord = self._chord(section, bar)
        style = self.plan.style
        role = "pad" if part is self.plan.pad else "chords"
        spread = chord.voicing(part.low, rootless=style.rootless and self.plan.bass is not None)
        ascending = (*spread, *(pitch + 12 for pitch in spread))
        arpeggio = style.chord_style == "arpeggio" and role == "chords" and part.sound not in PADS
        for step, length, velocity in self._hits(part, section, bar, role):
            if arpeggio:
                turn = 2 * len(ascending) - 2
                position = (step // 2 if length > 1 else step) % turn
                pitch = ascending[min(position, turn - position) % len(ascending)]
                yield self._note(part, bar, step, length, velocity, (pitch,), timing)
            elif style.chord_style == "power" and part.sound == style.chords.sound:
                root = chord.bass(part.low)
                yield self._note(part, bar, step, length, velocity, (root, root + 7, root + 12), timing)
            else:
                yield self._note(part, bar, step, length, velocity, spread, timing)

    def _bass(self, part: Part, section: Section, bar: int, timing: np.random.Generator) -> Iterator[Note]:
        chord, style = self._chord(section, bar), self.plan.style
        root = chord.bass(part.low)
        random = self._generator(f"bass line {section.name}", (bar - section.first_bar) % 8)
        hits = list(self._hits(part, section, bar, "bass"))
        upcoming = self.form.section_of(min(bar + 1, self.form.bars - 1))
        target = self._chord(upcoming, bar + 1).bass(part.low)
        for index, (step, length, velocity) in enumerate(hits):
            last = index == len(hits) - 1
            pitch, glide = root, 0
            if style.bass_style == "walking":
                pitch = self._walking_pitch(chord, root, target, index, random)
            elif style.bass_style == "octaves" and index and random.random() < 0.4:
                pitch = root + 12
            elif style.bass_style == "groove" and index:
                approach = target - 1 if last and target != root else root + 7
                pitch = int(random.choice((root, root, root + 12, root + 7, approach)))
            elif style.bass_style == "trap" and last and random.random() < 0.35:
                glide = int(random.choice((12, 7, -5, 3))) if part.sound == "808" else 0
            yield self._note(part, bar, step, length, velocity, (pitch,), timing, glide)

    @staticmethod
    def _walking_pitch(chord: Chord, root: int, target: int, beat: int, random: np.random.Generator) -> int:
        """One beat of a walking bass: the root, two chord tones, and a half-step to the next root."""
        if beat == 0:
            return root
        if beat == 3:
            return target + (1 if random.random() < 0.5 else -1)
        tones = [root + interval for interval in chord.intervals[1:4] if interval < 12]
        return int(random.choice(tones)) - (12 if root > 38 and random.random() < 0.3 else 0)

    def _lead(self, part: Part, section: Section, bar: int, timing: np.random.Generator) -> Iterator[Note]:
        style = self.plan.style
        motif = "A" if section.name in ("intro", "outro", "break") else section.name
        density = style.lead_density * (1.0 + 0.2 * self.plan.drive)
        phrase = build_phrase(self._generator(f"melody {motif}"), density)
        window = (bar - section.first_bar) % PHRASE_BARS * STEPS_PER_BAR
        chord = self._chord(section, bar)
        low = part.low + round(2 * self.plan.brightness) - 5
        for tone in phrase:
            if not window <= tone.step < window + STEPS_PER_BAR:
                continue
            pitch = resolve_pitch(tone, self.plan.key, chord, low)
            note = self._note(part, bar, tone.step - window, tone.length * 0.95, tone.accent, (pitch,), timing)
            yield replace(note, echo=_ECHO_LEVEL)

    def _closing_chord(self, end: int) -> Iterator[Note]:
        """The closing chord, played by all parts and left to ring."""
        plan, style = self.plan, self.plan.style
        colour = {"jazz": "6", "lo-fi": "add9", "hip hop": "add9", "ambient": "add9", "rock": "5"}
        chord = parse_chord(("i" if plan.key.minor else "I") + colour.get(style.name, ""), plan.key.tonic)
        hold = self.form.total_frames - end
        for role, part in (("chords", plan.chords), ("pad", plan.pad), ("bass", plan.bass), ("lead", plan.lead)):
            if part is None:
                continue
            pitches = chord.voicing(part.low)
            if part is plan.bass or part is plan.lead:
                pitches = (chord.bass(part.low),)
            elif style.chord_style == "power" and part.sound == style.chords.sound:
                root = chord.bass(part.low)
                pitches = (root, root + 7, root + 12)
            yield Note(
                end, hold, part.sound, part.gain * 0.95, pitches, part.pan, part.send, part.ducked, stem=_STEMS[role]
            )
        kick = next((drum for drum in plan.drums if drum.sound.endswith("kick")), None)
        if kick is not None:
            yield Note(end, 0, kick.sound, kick.gain, pan=kick.pan, send=kick.send)
            cymbal = "crash" if style.crash else "ride" if style.name == "jazz" else "open hat"
            yield Note(end, 0, cymbal, 0.2, pan=0.15, send=0.25)
