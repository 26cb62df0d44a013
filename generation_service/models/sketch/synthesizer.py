"""The `sketch` model: a deterministic synthesiser behind the same interface as neural models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.sketch.composition.arranger import MAX_JITTER_FRAMES, Arranger
from generation_service.models.sketch.composition.form import Form
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import Plan, build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.models.sketch.synthesis.mixer import Mixer
from generation_service.models.sketch.synthesis.texture import LOOP_FRAMES
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

BLOCK_FRAMES: Final = 8192
"""Frames rendered per step: 256 ms."""

_FADE_IN_FRAMES: Final = 96
_MAX_DUCK_SECONDS: Final = 0.32

INFO: Final = ModelInfo(
    name="sketch",
    version="2",
    description="Rule-based synthesiser: drums, bass, chords and melody from the prompt's words. No AI model.",
    licence="Apache-2.0",
    sample_rate_hz=RATE_HZ,
    channels=2,
    max_duration_seconds=3600.0,
    is_synthesiser=True,
)


@dataclass(slots=True)
class SketchState:
    """The state of one piece: its arranger, its mixer, and its position."""

    metadata: Mapping[str, MetadataValue]
    sections: Sequence[Section]
    total_frames: int
    arranger: Arranger
    mixer: Mixer | None
    """None after the state has been released."""
    texture: Note | None
    position: int = 0
    next_bar: int = 0


class Sketch:
    """Implements `generation_service.models.base.Model`. It is stateless and can run any number of states."""

    @property
    def info(self) -> ModelInfo:
        return INFO

    def prefill(self, parameters: GenerationParameters) -> SketchState:
        """Parses the prompt and plans the piece. Sounds are rendered when they are first played."""
        random = np.random.default_rng([parameters.seed, 1])
        plan = build_plan(parse_prompt(parameters.prompt), random)
        style = plan.style
        mixer = Mixer(
            block=BLOCK_FRAMES,
            rate_hz=RATE_HZ,
            duck=style.duck,
            duck_seconds=min(_MAX_DUCK_SECONDS, 0.85 * 60.0 / plan.bpm),
            reverb_seconds=style.reverb_seconds,
            reverb_gain=style.reverb_gain * plan.space,
            gain=style.gain,
            seed=parameters.seed,
            tonic=plan.key.tonic,
        )
        texture = Note(0, 0, style.texture, style.texture_gain, stem="texture") if style.texture else None
        arranger = Arranger.for_length(plan, parameters.seed, parameters.frames, RATE_HZ)
        return SketchState(
            metadata=_metadata(plan),
            sections=_sections(arranger.form),
            total_frames=parameters.frames,
            arranger=arranger,
            mixer=mixer,
            texture=texture,
        )

    def step(self, states: Sequence[SketchState]) -> list[FloatArray]:
        """The next block of each state: [8192, 2], less for the last block, and [0, 2] after it."""
        return [_render_block(state) for state in states]

    def save_checkpoint(self, state: SketchState) -> bytes:
        """Returns the position. It renders the frames before it once more, a hundred times as fast as they play."""
        return state.position.to_bytes(8, "little")

    def release(self, state: SketchState) -> None:
        """Frees the rendered sounds. A released state yields only empty blocks."""
        state.mixer = None


def _render_block(state: SketchState) -> FloatArray:
    count = min(BLOCK_FRAMES, state.total_frames - state.position)
    if count <= 0 or state.mixer is None:
        return np.zeros((0, INFO.channels), np.float32)
    form = state.arranger.form
    horizon = state.position + BLOCK_FRAMES + MAX_JITTER_FRAMES
    # The bar after the last is the closing chord.
    while state.next_bar <= form.bars and form.frame(state.next_bar - 1) < horizon:
        state.mixer.schedule(state.arranger.write_bar(state.next_bar))
        state.next_bar += 1
    _schedule_texture(state, state.mixer)
    block = np.ascontiguousarray(state.mixer.render()[:, :count].T)
    _fade(block, state.position, form.fade_start, state.total_frames)
    state.position += count
    return block


def _schedule_texture(state: SketchState, mixer: Mixer) -> None:
    """Repeats the texture loop without gaps. Its length is a multiple of BLOCK_FRAMES."""
    note = state.texture
    if note is not None and state.position % LOOP_FRAMES == 0:
        mixer.schedule([replace(note, start=state.position)])


def _fade(block: FloatArray, position: int, fade_start: int, total: int) -> None:
    """Fades in within 3 ms, and out to silence at the last frame. In place."""
    if position < _FADE_IN_FRAMES:
        rise = (np.arange(position, position + len(block)) + 0.5) / min(_FADE_IN_FRAMES, total)
        block *= np.minimum(1.0, rise).astype(np.float32)[:, None]
    if position + len(block) > fade_start:
        frames = np.arange(position, position + len(block))
        progress = np.clip((frames + 1 - fade_start) / (total - fade_start), 0.0, 1.0)
        block *= (np.cos(0.5 * np.pi * progress) ** 2).astype(np.float32)[:, None]


def _metadata(plan: Plan) -> dict[str, MetadataValue]:
    return {
        "bpm": plan.bpm,
        "key": plan.key.name,
        "genre": plan.style.name,
        "instruments": ", ".join(plan.instruments),
        "time_signature": "4/4",
    }


def _sections(form: Form) -> tuple[Section, ...]:
    """Returns the sections of the form. The last one includes the closing chord, or the fade-out."""
    starts = [form.frame(section.first_bar) for section in form.sections]
    return tuple(
        Section(section.name, start, end)
        for section, start, end in zip(form.sections, starts, [*starts[1:], form.total_frames], strict=True)
    )
