"""The formats in which a GPU stores the weights of a linear layer, and the layer in plain PyTorch.

All formats but fp32 are multiplied in bf16 with sums in fp32; int8 and fp8 save only memory and the time to read it.
Every int8 and every fp8 e4m3 value is a bf16 value, too, so that the conversion back is exact. Both have one scale per
output, which multiplies the finished sum.

The layer of MusicGen-small with the most weights, 4096 × 1024, takes 16 MiB in fp32, 8 MiB in bf16, and 4 MiB + 16 KiB
in int8 or fp8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

WeightFormat = Literal["fp32", "bf16", "int8", "fp8"]

WEIGHT_DTYPES: dict[WeightFormat, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}
_LARGEST: dict[WeightFormat, float] = {"int8": 127.0, "fp8": 448.0}
"""The largest magnitude that is stored; the largest weight of an output is scaled to it."""
_MIN_MAGNITUDE = 1e-30
"""Replaces a magnitude of 0, to avoid a division by 0."""


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The weights of a linear layer: `values`, times `scale` if there is one."""

    values: Tensor
    """[out, in], contiguous, of a type in `WEIGHT_DTYPES`."""
    scale: Tensor | None
    """fp32 [out]; None for fp32 and bf16."""

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)

    @property
    def product_dtype(self) -> torch.dtype:
        """The type that inputs and weights are multiplied in."""
        return torch.float32 if self.values.dtype == torch.float32 else torch.bfloat16

    def dequantized(self) -> Tensor:
        """fp32 [out, in]."""
        values = self.values.float()
        return values if self.scale is None else values * self.scale[:, None]


def store_weights(weight: Tensor, weight_format: WeightFormat) -> StoredWeights:
    """weight: fp32 [out, in], any device.

    In int8 a weight is off by at most 1/254 of the largest weight of its output. In fp8 it is off by at most 1/16 of
    itself, or, if it is tiny, by 2^-19 of that largest weight: coarser for large weights, finer for small ones.
    """
    dtype = WEIGHT_DTYPES[weight_format]
    if weight_format not in _LARGEST:
        return StoredWeights(weight.to(dtype).contiguous(), None)
    scale = weight.float().abs().amax(1).clamp_min(_MIN_MAGNITUDE) / _LARGEST[weight_format]
    scaled = weight / scale[:, None]
    return StoredWeights((scaled.round_() if weight_format == "int8" else scaled).to(dtype).contiguous(), scale)


def linear(x: Tensor, weights: StoredWeights) -> Tensor:
    """x Wᵀ in plain PyTorch, which defines what the Triton kernel computes. x: [rows, in] → fp32 [rows, out].

    It converts all weights at every call, so with int8 and fp8 it is slower than with bf16.
    """
    y = F.linear(x.to(weights.product_dtype), weights.values.to(weights.product_dtype)).float()
    return y if weights.scale is None else y * weights.scale
