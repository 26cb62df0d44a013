"""Linear layers for any device in the formats of `quantized_weights`: by one Triton kernel, or in plain PyTorch."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.kernels import quantized_weights
from generation_service.models.musicgen.kernels.quantized_weights import StoredWeights, WeightFormat, store_weights
from generation_service.models.musicgen.lm.layer_norm import NORM_EPSILON, LayerNorm

LinearImplementation = Literal["triton", "triton_pdl", "torch"]
"""In the order of preference. "triton_pdl" launches the kernel while the one before it is still running."""


class TorchLinear:
    """Works everywhere. A row has the same result only in batches of the same size."""

    def __init__(self, weights: StoredWeights) -> None:
        self.weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        return quantized_weights.linear(x, self.weights)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x)).to(self.weights.product_dtype)

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        return self.gelu(norm(x)) if gelu else self(norm(x))


class TritonLinear:
    """One kernel per call, whatever is fused. A row has the same result in any batch."""

    def __init__(self, weights: StoredWeights, *, pdl: bool = False) -> None:
        """Raises ImportError if Triton isn't installed. pdl: programmatic dependent launch."""
        from generation_service.models.musicgen.kernels.linear_kernel import fused_linear

        self.weights = weights
        self._fused_linear = partial(fused_linear, weights=weights, pdl=pdl)

    def __call__(self, x: Tensor) -> Tensor:
        return self._fused_linear(x)

    def gelu(self, x: Tensor) -> Tensor:
        return self._fused_linear(x, gelu=True)

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        return self._fused_linear(x, residual=residual)

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        parameters = (norm.weight, norm.bias, NORM_EPSILON)
        return self._fused_linear(x, norm=parameters, gelu=gelu)


DeviceLinear = TorchLinear | TritonLinear


def build_device_linear(
    weight: Tensor, weight_format: WeightFormat, implementation: LinearImplementation
) -> DeviceLinear:
    """weight: fp32 [out, in], on the device. Inputs are fp32 or bf16; results are fp32, those of `gelu` in the type of
    the product: bf16, unless the weights are fp32.

    Raises ImportError if Triton is asked for and not installed.
    """
    return bind_device_linear(store_weights(weight, weight_format), implementation)


def bind_device_linear(weights: StoredWeights, implementation: LinearImplementation) -> DeviceLinear:
    """The same with weights that are stored already."""
    if implementation == "torch":
        return TorchLinear(weights)
    return TritonLinear(weights, pdl=implementation == "triton_pdl")
