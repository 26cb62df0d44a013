"""Matrix products whose every row comes out the same to the last bit, whatever rows it shares the batch with.

That is what keeps a seed's music the same in any company. A plain `F.linear` does not: it picks kernels, which sum in
different orders, by the count of rows.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.lm.huge_pages import collapse

Precision = Literal["fp32", "int8", "bf16"]

_ZERO_POINT = 128
_SMALLEST = 1e-30
"""In place of a magnitude of 0, by which nothing can be divided."""
_PACKED_ROWS = 8
"""The count of rows that weights are laid out for; others work as well, and it changes no result."""


class Linear(Protocol):
    """A product with fixed weights, W: [out, in], and what follows it at once. x: [rows, in] → [rows, out]."""

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """gelu(x Wᵀ)."""
        ...

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """to + x Wᵀ. to: [rows, out]."""
        ...


class PackedLinear:
    """fp32 by oneDNN, the weights laid out for it once. 2 to 7 times as fast as `F.linear` at 2 to 32 rows."""

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in]."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous(), _PACKED_ROWS)
        collapse(torch.ops.mkldnn.data_ptr(self._weight), torch.ops.mkldnn._nbytes(self._weight))

    @property
    def weight(self) -> Tensor:
        """As it was given, laid out anew: [out, in]."""
        weight: Tensor = self._weight.to_dense()
        return weight

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x, "none", "")

    def gelu(self, x: Tensor) -> Tensor:
        return self._product(x, "gelu", "none")

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        if len(x) == 1:
            return to + self(x)
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, to, self._weight, None, "add")
        return y

    def _product(self, x: Tensor, then: str, how: str) -> Tensor:
        # One row would take a vector kernel, which sums in another order.
        rows = x.expand(2, -1).contiguous() if len(x) == 1 else x
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._weight, None, then, [], how)
        return y if rows is x else y[:1]


class Int8Linear:
    """Weights in int8 with a scale for every output, activations in 8 bit with a scale for every row.

    PyTorch's dynamic quantisation has one scale for all activations of a batch: there a row's result would depend on
    the others. Sums of integers have no rounding, so rows of their own scales come out the same in any batch.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in]."""
        weight = weight.float()
        self._scale = weight.abs().amax(1).clamp_min(_SMALLEST) / 127  # [out]
        self._zero = torch.zeros(len(weight), dtype=torch.int32)
        self._weight = torch.ops.onednn.qlinear_prepack((weight / self._scale[:, None]).round_().to(torch.int8), None)

    def __call__(self, x: Tensor) -> Tensor:
        y, step = self._product(x)
        return y.mul_(step)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x))

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return torch.addcmul(to, *self._product(x))

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, out], to be multiplied by [rows, 1]."""
        step = x.abs().amax(1, keepdim=True).clamp_min_(_SMALLEST).div_(127)
        # Unsigned with a zero point: what VNNI multiplies. The half makes the cast round.
        quantized = (x / step).add_(_ZERO_POINT + 0.5).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise.default(
            quantized,
            1.0,
            _ZERO_POINT,
            self._weight,
            self._scale,
            self._zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return y, step


class PlainLinear:
    """Wherever oneDNN is not: rows come out the same only among batches of the same size."""

    def __init__(self, weight: Tensor) -> None:
        """weight: [out, in], in the precision to multiply in."""
        self._weight = weight.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self._weight.dtype), self._weight)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x))

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return to + self(x)


def make_linear(weight: Tensor, precision: Precision) -> Linear:
    """The best there is for this device. weight: [out, in]."""
    if precision == "int8":
        return Int8Linear(weight)
    if precision == "bf16":
        return PlainLinear(weight.bfloat16())
    if weight.device.type == "cpu" and torch._C._has_mkldnn:
        return PackedLinear(weight)
    return PlainLinear(weight.float())
