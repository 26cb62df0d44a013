"""Layer normalization with weights from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Normalizes every row (Ba et al. 2016). weight, bias: fp32 [dim]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, NORM_EPSILON)
