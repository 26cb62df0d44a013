"""The ``sketch`` model: a deterministic synthesiser behind the interface that neural models have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo
from generation_service.models.sketch.composition.arranger import MAX_JITTER_FRAMES, Arranger
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.composition.plan import Plan, build_plan
from generation_service.models.sketch.composition.prompt_parser import parse_prompt
from generation_service.models.sketch.synthesis.mixer import Mixer
from generation_service.models.sketch.synthesis.texture import LOOP_FRAMES
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

BLOCK_FRAMES: Final = 8192
"""Frames a step renders: 256 ms."""

_FADE_IN_FRAMES: Final = 96
_MAX_DUCK_SECONDS: Final = 0.32

INFO: Final = ModelInfo(
    name="sketch",
    version="1",
    description="Rule-based synthesiser: drums, bass, chords and melody from the prompt's words. No AI model.",
    licence="Apache-2.0",
    sample_rate_hz=RATE_HZ,
    channels=2,
    max_duration_seconds=3600.0,
    is_synthesiser=True,
)


@dataclass(slots=True)
class SketchState:
    """One piece under way: what is still to be written and what still sounds."""

    metadata: Mapping[str, MetadataValue]
    total_frames: int
    arranger: Arranger
    mixer: Mixer | None
    """None once the state is released."""
    texture: Note | None
    position: int = 0
    next_bar: int = field(default=0)


class Sketch:
    """Implements ``generation_service.models.base.Model``. Any number of states at once; no memory between."""

    @property
    def info(self) -> ModelInfo:
        return INFO

    def prefill(self, parameters: GenerationParameters) -> SketchState:
        """Read the prompt and lay out the piece. Sounds are rendered when they are first played."""
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
        texture = Note(0, 0, style.texture, style.texture_gain) if style.texture else None
        return SketchState(
            metadata=_metadata(plan),
            total_frames=parameters.frames,
            arranger=Arranger.for_length(plan, parameters.seed, parameters.frames, RATE_HZ),
            mixer=mixer,
            texture=texture,
        )

    def step(self, states: Sequence[SketchState]) -> list[FloatArray]:
        """One block of each state: ``[8192, 2]``, the last one shorter, then ``[0, 2]``."""
        return [_advance(state) for state in states]

    def release(self, state: SketchState) -> None:
        """Drop the sounds. A released state yields nothing more."""
        state.mixer = None


def _advance(state: SketchState) -> FloatArray:
    count = min(BLOCK_FRAMES, state.total_frames - state.position)
    if count <= 0 or state.mixer is None:
        return np.zeros((0, INFO.channels), np.float32)
    form = state.arranger.form
    horizon = state.position + BLOCK_FRAMES + MAX_JITTER_FRAMES
    # One bar past the last is the close.
    while state.next_bar <= form.bars and form.frame(state.next_bar - 1) < horizon:
        state.mixer.schedule(state.arranger.write_bar(state.next_bar))
        state.next_bar += 1
    _schedule_texture(state, state.mixer)
    block = np.ascontiguousarray(state.mixer.render()[:, :count].T)
    _fade(block, state.position, form.fade_start, state.total_frames)
    state.position += count
    return block


def _schedule_texture(state: SketchState, mixer: Mixer) -> None:
    """Lay the loop end to end; BLOCK_FRAMES divides its length."""
    note = state.texture
    if note is not None and state.position % LOOP_FRAMES == 0:
        mixer.schedule([Note(state.position, 0, note.sound, note.gain)])


def _fade(block: FloatArray, position: int, fade_start: int, total: int) -> None:
    """From silence within 3 ms, and to silence by the last frame. In place."""
    if position < _FADE_IN_FRAMES:
        rise = (np.arange(position, position + len(block)) + 0.5) / min(_FADE_IN_FRAMES, total)
        block *= np.minimum(1.0, rise).astype(np.float32)[:, None]
    if position + len(block) > fade_start:
        at = np.arange(position, position + len(block))
        done = np.clip((at + 1 - fade_start) / (total - fade_start), 0.0, 1.0)
        block *= (np.cos(0.5 * np.pi * done) ** 2).astype(np.float32)[:, None]


def _metadata(plan: Plan) -> dict[str, MetadataValue]:
    return {
        "bpm": plan.bpm,
        "key": plan.key.name,
        "genre": plan.style.name,
        "instruments": ", ".join(plan.instruments),
        "time_signature": "4/4",
    }
