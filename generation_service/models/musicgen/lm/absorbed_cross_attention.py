"""Cross-attention to a short prompt, with the projections around it absorbed into the prompt once per request.

The scores of a head are (x Wq) Kᵀ = x (Wq Kᵀ), and its output is p (V Wo). For T tokens, the products in parentheses
have H T rows of the model's width. For few tokens that is less to read at every step than Wq and Wo. DeepSeek-V2
absorbs its up-projections in the same way (2024, section 2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.weighted_row_sum import weighted_row_sum

_PARTIAL_SUMS = 2
"""Every sum is split into this many parts, so that two threads can share it. It is fixed because it decides how a sum
rounds."""


def max_absorbed_tokens(config: LmConfig) -> int:
    """The longest prompt worth absorbing: its products have a quarter of the size of Wq and Wo.

    The batch size is ignored on purpose. A larger batch reads Wq and Wo only once, but a limit that depended on it
    would make the samples of a request depend on the others.
    """
    return config.head_dim // 4


@dataclass(frozen=True, slots=True)
class AbsorbedCrossAttention:
    """The absorbed cross-attention of one layer for one request."""

    scores: Tensor
    """Wq Kᵀ, scaled: [dim, H T]."""
    outputs: Tensor
    """V Wo: [H T, dim]."""
    heads: int
    score_rows: Tensor
    score_offsets: Tensor
    output_rows: Tensor
    output_offsets: Tensor

    @classmethod
    def from_projection(cls, cross: Tensor, query_weight: Tensor, out_weight: Tensor) -> AbsorbedCrossAttention:
        """cross: the projected text, [2 (key, value), 1, H, T, D]; Wq and Wo: [dim (out), dim (in)]."""
        keys, values = cross[:, 0]
        heads, tokens, size = keys.shape
        dim = heads * size
        scores = torch.matmul(keys * size**-0.5, query_weight.view(heads, size, dim))  # [H, T, dim]
        outputs = torch.matmul(values, out_weight.t().view(heads, size, dim))  # [H, T, dim]
        return cls(
            scores.view(-1, dim).t().contiguous(),
            outputs.view(-1, dim),
            heads,
            *_row_indices(dim),
            *_row_indices(heads * tokens),
        )

    def attend(self, row: Tensor) -> Tensor:
        """row: [dim], the normalized conditional row → the output to add to it, [dim]."""
        scores = weighted_row_sum(self.scores, self.score_rows, self.score_offsets, row).sum(0)  # [H T]
        weights = scores.view(self.heads, -1).softmax(-1)
        return weighted_row_sum(self.outputs, self.output_rows, self.output_offsets, weights.view(-1)).sum(0)

    def attend_all(self, rows: Tensor) -> Tensor:
        """The same for many rows, but rounded differently. rows: [n, dim] → [n, dim]."""
        weights = (rows @ self.scores).view(len(rows), self.heads, -1).softmax(-1)
        return weights.view(len(rows), -1) @ self.outputs


def _row_indices(count: int) -> tuple[Tensor, Tensor]:
    """The indices of `count` rows, and the offsets at which their partial sums begin."""
    return torch.arange(count, dtype=torch.int32), torch.arange(0, count, -(-count // _PARTIAL_SUMS), dtype=torch.int32)
