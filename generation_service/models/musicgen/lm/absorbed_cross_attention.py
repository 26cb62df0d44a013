"""Cross-attention to a short prompt, with the weights around it multiplied into the prompt once a request.

A head's scores are (x Wq) Kᵀ = x (Wq Kᵀ), and what it adds is p (V Wo). Of T tokens the products in brackets have H T
lines as long as the model is wide: few tokens are less to read at every step than Wq and Wo are. DeepSeek-V2 absorbs
its up-projections in the same way (2024, 2.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.weighted_row_sum import sum_lines

_PARTS = 2
"""Of a sum, for as many threads. Their count is no option: it decides how a sum rounds."""


def absorbed_tokens(config: LmConfig) -> int:
    """So many tokens at most are worth it: they are a quarter of Wq and Wo.

    It is not asked who else is in the batch, for whom Wq and Wo are read but once: that would change samples.
    """
    return config.head_dim // 4


@dataclass(frozen=True, slots=True)
class AbsorbedText:
    """One layer's, of one request."""

    scores: Tensor
    """Wq Kᵀ, scaled: [dim, H T]."""
    outputs: Tensor
    """V Wo: [H T, dim]."""
    heads: int
    score_lines: Tensor
    score_bags: Tensor
    output_lines: Tensor
    output_bags: Tensor

    @classmethod
    def of(cls, cross: Tensor, query_weight: Tensor, out_weight: Tensor) -> AbsorbedText:
        """cross: the text's [2 (key, value), 1, H, T, D]; Wq and Wo as checkpoints have them, [dim (out), dim (in)]."""
        keys, values = cross[:, 0]
        heads, tokens, size = keys.shape
        dim = heads * size
        scores = torch.matmul(keys * size**-0.5, query_weight.view(heads, size, dim))  # [H, T, dim]
        outputs = torch.matmul(values, out_weight.t().view(heads, size, dim))  # [H, T, dim]
        return cls(
            scores.view(-1, dim).t().contiguous(),
            outputs.view(-1, dim),
            heads,
            *_lines(dim),
            *_lines(heads * tokens),
        )

    def attend(self, row: Tensor) -> Tensor:
        """row: [dim], with the prompt, after the norm → what it adds, [dim]."""
        scores = sum_lines(self.scores, self.score_lines, self.score_bags, row).sum(0)  # [H T]
        weights = scores.view(self.heads, -1).softmax(-1)
        return sum_lines(self.outputs, self.output_lines, self.output_bags, weights.view(-1)).sum(0)

    def attend_all(self, rows: Tensor) -> Tensor:
        """rows: [n, dim] → [n, dim], likewise but for rounding."""
        weights = (rows @ self.scores).view(len(rows), self.heads, -1).softmax(-1)
        return weights.view(len(rows), -1) @ self.outputs


def _lines(count: int) -> tuple[Tensor, Tensor]:
    """Numbers of so many lines, and where each part of them begins."""
    return torch.arange(count, dtype=torch.int32), torch.arange(0, count, -(-count // _PARTS), dtype=torch.int32)
