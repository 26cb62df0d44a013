"""Linear layers for GPUs: both implementations do what the protocol says."""

from __future__ import annotations

from contextlib import nullcontext
from typing import get_args

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="kernels need Triton")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat  # noqa: E402
from generation_service.models.musicgen.lm.device_linear import (  # noqa: E402
    LinearImplementation,
    build_device_linear,
)
from generation_service.models.musicgen.lm.layer_norm import LayerNorm  # noqa: E402
from generation_service.models.musicgen.lm.linear import Linear  # noqa: E402
from tests.support.tensor_cores import interpreted_with_mma  # noqa: E402

ROWS, OUTPUTS, INPUTS = 6, 48, 64


def draw(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("implementation", get_args(LinearImplementation))
@pytest.mark.parametrize(
    ("weight_format", "tolerance"), [("fp32", 1e-5), ("bf16", 0.01), ("int8", 0.02), ("fp8", 0.05)]
)
def test_all_calls(implementation: LinearImplementation, weight_format: WeightFormat, tolerance: float) -> None:
    weight, x, residual = draw(OUTPUTS, INPUTS), draw(ROWS, INPUTS, seed=2), draw(ROWS, OUTPUTS, seed=3)
    norm = LayerNorm(draw(INPUTS, seed=4), draw(INPUTS, seed=5))
    linear: Linear = build_device_linear(weight, weight_format, implementation)
    with interpreted_with_mma() if implementation != "torch" else nullcontext():
        results = (
            linear(x),
            linear.gelu(x),
            linear.add_residual(x, residual),
            linear.normed(x, norm),
            linear.normed(x, norm, gelu=True),
        )
    expected = (
        x @ weight.t(),
        F.gelu(x @ weight.t()),
        residual + x @ weight.t(),
        norm(x) @ weight.t(),
        F.gelu(norm(x) @ weight.t()),
    )
    for result, exact in zip(results, expected, strict=True):
        assert (result - exact).norm() / exact.norm() < tolerance
    activated = torch.float32 if weight_format == "fp32" else torch.bfloat16
    assert [result.dtype for result in results] == [torch.float32, activated, *[torch.float32] * 2, activated]
