"""Linear layers in which every row has the same result, to the last bit, whatever other rows are in the batch.

This keeps the music of a seed independent of the other requests in the batch. Plain `F.linear` does not: it selects
kernels, which sum in different orders, by the number of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.lm.device_linear import build_device_linear
from generation_service.models.musicgen.lm.huge_pages import collapse_to_huge_pages
from generation_service.models.musicgen.lm.layer_norm import LayerNorm

Precision = Literal["fp32", "int8", "bf16"]

_ZERO_POINT = 128
_MAX_INT8 = 127
_MIN_MAGNITUDE = 1e-30
"""Replaces a magnitude of 0, to avoid a division by 0."""
_PACKED_ROWS = 8
"""The number of rows that weights are packed for. Other numbers work as well, and the results are the same."""


class Linear(Protocol):
    """A linear layer with fixed weights W: [out, in], and its fused variants. x: [rows, in] → [rows, out]."""

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """gelu(x Wᵀ)."""
        ...

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual + x Wᵀ. residual: [rows, out]."""
        ...

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        """norm(x) Wᵀ, or gelu of it."""
        ...


class PackedLinear:
    """fp32 by oneDNN, with weights that are packed once. 2 to 7 times as fast as `F.linear` for 2 to 32 rows."""

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in]."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous(), _PACKED_ROWS)
        collapse_to_huge_pages(torch.ops.mkldnn.data_ptr(self._weight), torch.ops.mkldnn._nbytes(self._weight))

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x, "none", "")

    def gelu(self, x: Tensor) -> Tensor:
        return self._product(x, "gelu", "none")

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        if len(x) == 1:
            return residual + self(x)
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, None, "add")
        return y

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        return self.gelu(norm(x)) if gelu else self(norm(x))

    def _product(self, x: Tensor, activation: str, algorithm: str) -> Tensor:
        # A single row would select a vector kernel, which sums in another order.
        rows = x.expand(2, -1).contiguous() if len(x) == 1 else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._weight, None, activation, [], algorithm)
        return y if rows is x else y[:1]


class Int8Linear:
    """Weights in int8 with a scale per output, activations in 8 bits with a scale per row.

    PyTorch's dynamic quantisation has one scale for all activations of a batch, which would make the result of a row
    depend on the others. Integer sums do not round, so rows with their own scales have the same result in any batch.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in]."""
        weight = weight.float()
        scale = weight.abs().amax(1).clamp_min(_MIN_MAGNITUDE) / _MAX_INT8  # [out]
        quantized = (weight / scale[:, None]).round_().to(torch.int8)
        has_fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
        self._multiply = (_fbgemm_product if has_fbgemm else _onednn_product)(quantized, scale)

    def __call__(self, x: Tensor) -> Tensor:
        y, magnitude = self._product(x)
        return y.mul_(magnitude)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x))

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        return torch.addcmul(residual, *self._product(x))

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        return self.gelu(norm(x)) if gelu else self(norm(x))

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product [rows, out] and the magnitude that it is still to be multiplied by, [rows, 1]."""
        # A row of zeros is divided by 0, but quantised NaN is some number, and that is multiplied by 0 again.
        magnitude = x.abs().amax(1, keepdim=True)
        return self._multiply(x / magnitude), magnitude


def _fbgemm_product(weight: Tensor, scale: Tensor) -> Callable[[Tensor], Tensor]:
    """Multiplies rows between -1 and 1 in 8 bits by int8 weights. FBGEMM quantises the rows while it packs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that quantised tensors will move to another package.
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
    return lambda x: multiply(x, 1 / _MAX_INT8, _ZERO_POINT, packed)


def _onednn_product(weight: Tensor, scale: Tensor) -> Callable[[Tensor], Tensor]:
    """The same where torch is built without FBGEMM, as on arm64."""
    packed, zero = torch.ops.onednn.qlinear_prepack(weight, None), torch.zeros(len(weight), dtype=torch.int32)
    multiply = torch.ops.onednn.qlinear_pointwise.default

    def product(x: Tensor) -> Tensor:
        # Unsigned with a zero point, which is what VNNI multiplies. The added 0.5 makes the cast round.
        quantized = (x * _MAX_INT8).add_(_ZERO_POINT + 0.5).to(torch.uint8)
        y: Tensor = multiply(
            quantized, 1 / _MAX_INT8, _ZERO_POINT, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y

    return product


def build_linear(weight: Tensor, precision: Precision) -> Linear:
    """Builds the fastest implementation for the CPU. weight: [out, in]."""
    if precision == "int8":
        return Int8Linear(weight)
    if precision == "fp32" and torch._C._has_mkldnn:
        return PackedLinear(weight)
    return build_device_linear(weight.float(), precision, "torch")
