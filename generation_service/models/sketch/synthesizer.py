"""The `sketch` model: a deterministic synthesiser behind the same interface as neural models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.notation.score import Score, StemRendering
from generation_service.models.sketch.composition.plan import Plan
from generation_service.models.sketch.piece import Piece, compose
from generation_service.models.sketch.piece_score import write_score
from generation_service.models.sketch.piece_stems import PieceStems
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

INFO: Final = ModelInfo(
    name="sketch",
    version="2",
    description="Rule-based synthesiser: drums, bass, chords and melody from the prompt's words. No AI model.",
    licence="Apache-2.0",
    sample_rate_hz=RATE_HZ,
    channels=2,
    max_duration_seconds=3600.0,
    is_synthesiser=True,
    knows_its_notes=True,
    makes_loops=True,
)


@dataclass(slots=True)
class SketchState:
    """The state of one piece."""

    metadata: Mapping[str, MetadataValue]
    sections: Sequence[Section]
    piece: Piece | None
    """None after the state has been released."""
    position: int = 0


class Sketch:
    """Implements `generation_service.models.base.Model` and `generation_service.models.notation.score.KnowsItsNotes`.
    It is stateless and can run any number of states."""

    @property
    def info(self) -> ModelInfo:
        return INFO

    def prefill(self, parameters: GenerationParameters) -> SketchState:
        """Parses the prompt and plans the piece. Sounds are rendered when they are first played."""
        piece = compose(parameters)
        return SketchState(metadata=_metadata(piece.plan), sections=piece.sections, piece=piece)

    def step(self, states: Sequence[SketchState]) -> list[FloatArray]:
        """The next block of each state: [8192, 2], less for the last block, and [0, 2] after it."""
        return [_render_block(state) for state in states]

    def save_checkpoint(self, state: SketchState) -> bytes:
        """Returns the position. It renders the frames before it once more, much faster than they play."""
        return state.position.to_bytes(8, "little")

    def release(self, state: SketchState) -> None:
        """Frees the rendered sounds. A released state yields only empty blocks."""
        state.piece = None

    def write_score(self, parameters: GenerationParameters) -> Score:
        """Returns the notes that are heard in the piece."""
        return write_score(compose(parameters))

    def render_stems(self, parameters: GenerationParameters) -> StemRendering:
        """Returns the stems of the piece, which are rendered as they are read."""
        return PieceStems(compose(parameters))


def _render_block(state: SketchState) -> FloatArray:
    if state.piece is None:
        return np.zeros((0, INFO.channels), np.float32)
    stems = state.piece.render_block()
    state.position = state.piece.position
    return np.ascontiguousarray(stems.sum(axis=0).T)


def _metadata(plan: Plan) -> dict[str, MetadataValue]:
    return {
        "bpm": plan.bpm,
        "key": plan.key.name,
        "genre": plan.style.name,
        "instruments": ", ".join(plan.instruments),
        "time_signature": "4/4",
    }
