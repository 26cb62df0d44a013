"""The two ends of a decode step, in plain PyTorch: what stands before the layers and after sampling.

They define what the kernels in `step_ends_kernel` compute. Nothing here reads a tensor on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.delay_pattern import delay_sampled_codes
from generation_service.models.musicgen.sampling import CFG_ROWS

POSITION, SAMPLE_COUNT, PROMPT_FRAMES, FRAMES, TOP_K, SEED = range(6)
"""The rows of `StepState.integers`."""
GUIDANCE_SCALE, TEMPERATURE, TOP_P = range(3)
"""The rows of `StepState.floats`."""
_PROGRESS = slice(POSITION, SAMPLE_COUNT + 1)


class StepState(Protocol):
    """What the ends read and write of the state of S slots and the padding slot, number S."""

    codes: Tensor
    """int64 [S + 1, K, positions + 1]."""
    integers: Tensor
    """int64 [6, S + 1]."""
    floats: Tensor
    """fp32 [3, S + 1]."""
    rows: Tensor
    """int64 [S]: the slots of the step, those of rows without a request the padding slot."""
    results: Tensor
    """int64 [S, K + 1]."""


@dataclass(frozen=True, slots=True)
class CodeEmbeddings:
    """What the codes and the positions add to the input of the first layer."""

    codes: Tensor
    """fp32 [K (card + 1), dim]: one table for all codebooks."""
    offsets: Tensor
    """int64 [K], where each codebook begins in `codes`."""
    positions: Tensor
    """fp32 [positions, dim]."""

    def embed(self, codes: Tensor, positions: Tensor) -> Tensor:
        """codes: int64 [B, K], positions: int64 [B] → both rows of each request, fp32 [2 B, dim]."""
        x = F.embedding(codes + self.offsets, self.codes).sum(1) + self.positions[positions]
        return x[:, None].expand(-1, CFG_ROWS, -1).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What a step reads of the state: copies, because its end changes the state."""

    x: Tensor
    """fp32 [2 B, dim]: the input of the first layer."""
    integers: Tensor
    """int64 [6, B]: those of the step's requests."""
    floats: Tensor
    """fp32 [3, B]."""


def begin_step(state: StepState, batch: int, embeddings: CodeEmbeddings) -> StepInputs:
    """Gathers the inputs of the first `batch` requests of `state.rows`: the newest code of each codebook, embedded."""
    rows = state.rows[:batch]
    integers = state.integers.index_select(1, rows)
    positions = integers[POSITION]
    x = embeddings.embed(state.codes[rows, :, positions], positions)
    return StepInputs(x, integers, state.floats.index_select(1, rows))


def end_step(state: StepState, integers: Tensor, sampled: Tensor, is_finite: Tensor, delays: Tensor) -> None:
    """Writes the codes of the next step into the windows, advances the requests, and writes the results.

    integers: those of `StepInputs`. sampled: int64 [B, K]; is_finite: bool [B, K], whether the logits of each codebook
    are finite; delays: int64 [K].
    """
    rows, positions = state.rows[: len(sampled)], integers[POSITION]
    known = state.codes[rows, :, positions + 1]
    codes = delay_sampled_codes(sampled, known, positions, integers[PROMPT_FRAMES], integers[FRAMES], delays)
    state.codes[rows, :, positions + 1] = codes
    # The padding slot stays at its position, however many rows of a step it has.
    padding_slot = state.codes.shape[0] - 1
    state.integers[_PROGRESS].index_copy_(1, rows, integers[_PROGRESS] + (rows != padding_slot))
    results = state.results[: len(rows)]
    results[:, :-1] = sampled
    results[:, -1] = is_finite.all(1)
