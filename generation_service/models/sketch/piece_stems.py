"""The stems of a piece of the sketch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.piece import Piece
from generation_service.models.sketch.synthesis.stem_bus import STEMS


class PieceStems:
    """Implements `generation_service.models.notation.score.StemRendering`."""

    def __init__(self, piece: Piece) -> None:
        """`piece` must be new."""
        self._piece = piece
        stems = {note.stem for bar in piece.bars() for note in bar}
        if piece.texture is not None:
            stems.add(piece.texture.stem)
        self._indices = [index for index, name in enumerate(STEMS) if name in stems]

    @property
    def names(self) -> tuple[str, ...]:
        """The stems with at least one note."""
        return tuple(STEMS[index] for index in self._indices)

    def blocks(self) -> Iterator[FloatArray]:
        """Yields the stems, float32 [stems, n, 2]. Can be read once."""
        while (block := self._piece.render_block()).shape[2]:
            yield np.ascontiguousarray(np.swapaxes(block[self._indices], 1, 2))
