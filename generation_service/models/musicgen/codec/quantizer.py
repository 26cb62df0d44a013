"""Residual vector quantisation (RVQ): each codebook quantises the residual of the codebooks before it.

Source: audiocraft 1.3.0, `quantization/core_vq.py` (Zeghidour et al. 2021, "SoundStream", algorithm 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualQuantizer(nn.Module):
    """K codebooks of `size` vectors each."""

    def __init__(self, codebooks: int, size: int, dimension: int) -> None:
        super().__init__()
        self.codebooks = nn.ParameterList(
            [nn.Parameter(torch.empty(size, dimension), requires_grad=False) for _ in range(codebooks)]
        )

    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, K, n], of the first codebooks → latents: [B, dimension, n]."""
        latents = sum(F.embedding(own, codebook) for own, codebook in zip(codes.unbind(1), self.codebooks))  # noqa: B905
        assert isinstance(latents, Tensor)
        return latents.transpose(1, 2)

    def encode(self, latents: Tensor, count: int | None = None) -> Tensor:
        """latents: [B, dimension, n] → codes: [B, K, n], the nearest vector of each codebook in turn.

        Only the first `count` codebooks are used if it is given.
        """
        residual = latents.transpose(1, 2)  # [B, n, dimension]
        codes = []
        for codebook in list(self.codebooks)[:count]:
            # The full squared distance, as audiocraft computes it. Without residual² the argmin would be the same in
            # exact arithmetic, but it would round, and break ties, differently.
            distance = residual.pow(2).sum(-1, keepdim=True) - 2 * residual @ codebook.t() + codebook.t().pow(2).sum(0)
            nearest = distance.argmin(-1)  # [B, n]
            residual = residual - F.embedding(nearest, codebook)
            codes.append(nearest)
        return torch.stack(codes, dim=1)
