"""Matrix products of rows with fixed weights, on which the streaming decoder is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

_PACKED_ROWS = 64
"""The number of rows that weights are packed for. Other numbers work as well, and the results are the same."""


class RowProduct(Protocol):
    """x Wᵀ + b. x: [..., in] → [..., out]."""

    def __call__(self, x: Tensor) -> Tensor:
        """x and the result are in float32."""
        ...


class PackedProduct:
    """fp32 by oneDNN, with weights that are packed once. A row has the same result in any batch, to the last bit."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKED_ROWS)
        self._bias = bias
        self._features = weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) == 1:  # A single row would select a vector kernel, which sums in another order.
            rows = rows.expand(2, -1)
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(
            rows.contiguous(), self._weight, self._bias, "none", [], ""
        )
        return y[: x.shape[:-1].numel()].view(*x.shape[:-1], self._features)


class PlainProduct:
    """`F.linear` in float32. A row has the same result only among the same number of rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        self._weight = weight.contiguous()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class HalfProduct:
    """Operands in float16, for tensor cores; sums and results in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        self._weight = weight.half().contiguous().t()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.half().flatten(0, -2)
        if rows.is_cuda:
            y = torch.mm(rows, self._weight, out_dtype=torch.float32)
        else:  # `out_dtype` exists for CUDA alone. The product of two float16 numbers is exact in float32.
            y = torch.mm(rows.float(), self._weight.float())
        return (y if self._bias is None else y.add_(self._bias)).view(*x.shape[:-1], y.shape[1])


ProductClass: TypeAlias = Callable[[Tensor, Tensor | None], RowProduct]
"""Builds a product from a weight, [out, in], and a bias, [out]."""
