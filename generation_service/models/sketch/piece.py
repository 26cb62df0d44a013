"""One piece of the sketch, from its parameters to its stems and its notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, LoopShape, Section
from generation_service.models.sketch.composition.arranger import MAX_JITTER_FRAMES, Arranger
from generation_service.models.sketch.composition.form import BEATS_PER_BAR, Form
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
_LEAD_BLOCKS: Final = 32
"""What is played before a loop: longer than any sound and its reverb."""
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
    is_loop: bool = False
    position: int = 0
    """The frame of the next block. That of a loop begins before it, so that it has the reverb of its own end."""
    _next_bar: int = field(default=0, repr=False)
    """Of a loop, counted through all its repetitions; it begins with the bars before it."""

    @property
    def form(self) -> Form:
        return self.arranger.form

    def bars(self) -> Iterator[list[Note]]:
        """The notes of each bar in order, the closing chord last. Does not change the piece."""
        return map(self._write_bar, range(self.form.bars + (not self.is_loop)))

    def skip_bars(self) -> None:
        """Leaves out the bars that end before the position."""
        while self._bar_start(self._next_bar + 1) <= self.position:
            self._next_bar += 1

    def render_block(self) -> FloatArray:
        """The next block: float32 [stems, 2, n], in the order of STEMS; n is 0 after the last one."""
        while self.position < 0:
            self._mix()
        count = min(BLOCK_FRAMES, self.total_frames - self.position)
        if count <= 0:
            return np.zeros((len(STEMS), 2, 0), np.float32)
        first = self.position
        stems = self._mix()[:, :, :count]
        self.position = first + count
        if not self.is_loop:
            _fade(stems, first, self.form.fade_start, self.total_frames)
        exact: FloatArray = np.rint(stems * _GRID) / _GRID
        return exact

    def _mix(self) -> FloatArray:
        horizon = self.position + BLOCK_FRAMES + MAX_JITTER_FRAMES
        # A bar may begin a little early. The bar after the last is the closing chord, unless the piece is a loop.
        while (self.is_loop or self._next_bar <= self.form.bars) and self._bar_start(self._next_bar - 1) < horizon:
            self.mixer.schedule(self._write_bar(self._next_bar))
            self._next_bar += 1
        if self.texture is not None and not self.is_loop and self.position % LOOP_FRAMES == 0:
            # It repeats without gaps: its length is a multiple of BLOCK_FRAMES.
            self.mixer.schedule([replace(self.texture, start=self.position)])
        self.position += BLOCK_FRAMES
        return self.mixer.render()

    def _bar_start(self, bar: int) -> int:
        if not self.is_loop:
            return self.form.frame(bar)
        repetition, bar = divmod(bar, self.form.bars)
        return repetition * self.total_frames + self.form.frame(bar)

    def _write_bar(self, number: int) -> list[Note]:
        """The notes of a bar. What begins after the end of a loop is left out: its last bar may be shorter."""
        if not self.is_loop:
            return self.arranger.write_bar(number)
        repetition, bar = divmod(number, self.form.bars)
        notes = self.arranger.write_bar(bar)
        if bar == 0 and self.texture is not None:
            notes.append(self.texture)
        offset = repetition * self.total_frames
        kept = (note for note in notes if note.start < self.total_frames)
        return [replace(note, start=note.start + offset) for note in kept] if offset else list(kept)


def compose(parameters: GenerationParameters) -> Piece:
    """Parses the prompt and plans the piece."""
    plan = build_plan(parse_prompt(parameters.prompt), np.random.default_rng([parameters.seed, 1]))
    loop = parameters.loop
    if loop is not None:
        plan = replace(plan, bpm=loop.bpm)
    style = plan.style
    start = 0 if loop is None else -_LEAD_BLOCKS * BLOCK_FRAMES
    settings = MixSettings(
        block=BLOCK_FRAMES,
        rate_hz=RATE_HZ,
        duck=style.duck,
        duck_seconds=min(_MAX_DUCK_SECONDS, 0.85 * 60.0 / plan.bpm),
        reverb_seconds=style.reverb_seconds,
        reverb_gain=style.reverb_gain * plan.space,
        echo_seconds=style.echo_beats * 60.0 / plan.bpm,
        gain=style.gain,
        genre=style.name,
        seed=parameters.seed,
        tonic=plan.key.tonic,
        start=start,
    )
    texture = Note(0, 0, style.texture, style.texture_gain, stem="texture") if style.texture else None
    if loop is None:
        arranger = Arranger.for_length(plan, parameters.seed, parameters.frames, RATE_HZ)
        sections = _sections(arranger.form)
        return Piece(plan, arranger, Mixer(settings), parameters.frames, sections, texture)
    return _compose_loop(plan, loop, settings, parameters, texture)


def _compose_loop(
    plan: Plan, loop: LoopShape, settings: MixSettings, parameters: GenerationParameters, texture: Note | None
) -> Piece:
    """The last bar of the loop is shorter if its beats do not fill it."""
    frames = parameters.frames
    bars = -(-loop.beats // BEATS_PER_BAR)
    whole = frames if loop.beats % BEATS_PER_BAR == 0 else round(frames * bars * BEATS_PER_BAR / loop.beats)
    arranger = Arranger.for_loop(plan, parameters.seed, bars, whole, RATE_HZ)
    if texture is not None:
        texture = replace(texture, gate=frames)
    piece = Piece(
        plan,
        arranger,
        Mixer(settings),
        frames,
        (Section("loop", 0, frames),),
        texture,
        is_loop=True,
        position=settings.start,
        _next_bar=bars * (settings.start // frames),
    )
    piece.skip_bars()
    return piece


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
