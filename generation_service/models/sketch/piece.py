"""One piece of the sketch, from its parameters to its stems and its notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, Section
from generation_service.models.sketch.composition.arranger import MAX_JITTER_FRAMES, Arranger
from generation_service.models.sketch.composition.form import Form
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import Plan, build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.models.sketch.synthesis.mixer import Mixer, MixSettings
from generation_service.models.sketch.synthesis.stem_bus import STEMS
from generation_service.models.sketch.synthesis.texture import LOOP_FRAMES
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

BLOCK_FRAMES: Final = 8192
"""Frames rendered at a time: 256 ms."""

_FADE_IN_FRAMES: Final = 96
_MAX_DUCK_SECONDS: Final = 0.32
_GRID: Final = np.float32(2.0**23)
"""Samples are rounded to multiples of its reciprocal. The float32 sum of the stems is then exact in any order, and
24-bit files of them add up to one of the mix."""


@dataclass(slots=True)
class Piece:
    """A piece and how far it has been rendered. Sounds are rendered when they are first played."""

    plan: Plan
    arranger: Arranger
    mixer: Mixer
    total_frames: int
    sections: tuple[Section, ...]
    texture: Note | None
    position: int = 0
    _next_bar: int = field(default=0, repr=False)

    @property
    def form(self) -> Form:
        return self.arranger.form

    def bars(self) -> Iterator[list[Note]]:
        """The notes of each bar in order, the closing chord last. Does not change the piece."""
        return map(self.arranger.write_bar, range(self.form.bars + 1))

    def render_block(self) -> FloatArray:
        """The next block: float32 [stems, 2, n], in the order of STEMS; n is 0 after the last one."""
        count = min(BLOCK_FRAMES, self.total_frames - self.position)
        if count <= 0:
            return np.zeros((len(STEMS), 2, 0), np.float32)
        horizon = self.position + BLOCK_FRAMES + MAX_JITTER_FRAMES
        # The bar after the last is the closing chord.
        while self._next_bar <= self.form.bars and self.form.frame(self._next_bar - 1) < horizon:
            self.mixer.schedule(self.arranger.write_bar(self._next_bar))
            self._next_bar += 1
        if self.texture is not None and self.position % LOOP_FRAMES == 0:
            # It repeats without gaps: its length is a multiple of BLOCK_FRAMES.
            note = self.texture
            self.mixer.schedule([Note(self.position, 0, note.sound, note.gain, stem=note.stem)])
        stems = self.mixer.render()[:, :, :count]
        _fade(stems, self.position, self.form.fade_start, self.total_frames)
        self.position += count
        exact: FloatArray = np.rint(stems * _GRID) / _GRID
        return exact


def compose(parameters: GenerationParameters) -> Piece:
    """Parses the prompt and plans the piece."""
    plan = build_plan(parse_prompt(parameters.prompt), np.random.default_rng([parameters.seed, 1]))
    style = plan.style
    settings = MixSettings(
        block=BLOCK_FRAMES,
        rate_hz=RATE_HZ,
        duck=style.duck,
        duck_seconds=min(_MAX_DUCK_SECONDS, 0.85 * 60.0 / plan.bpm),
        reverb_seconds=style.reverb_seconds,
        reverb_gain=style.reverb_gain * plan.space,
        echo_seconds=style.echo_beats * 60.0 / plan.bpm,
        gain=style.gain,
        seed=parameters.seed,
        tonic=plan.key.tonic,
    )
    texture = Note(0, 0, style.texture, style.texture_gain, stem="texture") if style.texture else None
    arranger = Arranger.for_length(plan, parameters.seed, parameters.frames, RATE_HZ)
    return Piece(
        plan=plan,
        arranger=arranger,
        mixer=Mixer(settings),
        total_frames=parameters.frames,
        sections=_sections(arranger.form),
        texture=texture,
    )


def _fade(stems: FloatArray, position: int, fade_start: int, total: int) -> None:
    """Fades in within 3 ms, and out to silence at the last frame. In place."""
    count = stems.shape[2]
    if position < _FADE_IN_FRAMES:
        rise = (np.arange(position, position + count) + 0.5) / min(_FADE_IN_FRAMES, total)
        stems *= np.minimum(1.0, rise).astype(np.float32)
    if position + count > fade_start:
        frames = np.arange(position, position + count)
        progress = np.clip((frames + 1 - fade_start) / (total - fade_start), 0.0, 1.0)
        stems *= (np.cos(0.5 * np.pi * progress) ** 2).astype(np.float32)


def _sections(form: Form) -> tuple[Section, ...]:
    """Returns the sections of the form. The last one includes the closing chord, or the fade-out."""
    starts = [form.frame(section.first_bar) for section in form.sections]
    return tuple(
        Section(section.name, start, end)
        for section, start, end in zip(form.sections, starts, [*starts[1:], form.total_frames], strict=True)
    )
