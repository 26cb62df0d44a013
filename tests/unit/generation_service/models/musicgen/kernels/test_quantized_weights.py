"""Weight formats: how exact they are, how much memory they take, and the layer in plain PyTorch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels.quantized_weights import (  # noqa: E402
    WeightFormat,
    linear,
    store_weights,
)


@pytest.fixture
def weight() -> Tensor:
    """Rows of very different magnitude, one of which is 0."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 512, generator=generator) * torch.logspace(-6, 3, 64)[:, None]
    weight[7] = 0
    return weight


def test_int8_is_off_by_half_a_step_at_most(weight: Tensor) -> None:
    error = (store_weights(weight, "int8").dequantized() - weight).abs()
    assert (error <= weight.abs().amax(1, keepdim=True) / 254 * 1.0001).all()


def test_fp8_is_off_by_a_sixteenth_of_a_weight_at_most(weight: Tensor) -> None:
    error = (store_weights(weight, "fp8").dequantized() - weight).abs()
    smallest_step = weight.abs().amax(1, keepdim=True) * 2.0**-18
    assert (error <= torch.maximum(weight.abs() / 16, smallest_step / 2) * 1.0001).all()


@pytest.mark.parametrize(("weight_format", "error"), [("fp32", 1e-6), ("bf16", 0.004), ("int8", 0.012), ("fp8", 0.035)])
def test_results_are_close_to_those_of_fp32(weight: Tensor, weight_format: WeightFormat, error: float) -> None:
    x = torch.randn(300, 512, generator=torch.Generator().manual_seed(2))
    exact = x @ weight.t()
    outputs = (linear(x, store_weights(weight, weight_format)) - exact).norm(dim=0) / exact.norm(dim=0).clamp_min(1e-30)
    assert outputs.max() < error


def test_memory_of_a_layer() -> None:
    weight = torch.zeros(4096, 1024)
    sizes = {name: store_weights(weight, name).nbytes for name in ("fp32", "bf16", "int8", "fp8")}  # type: ignore[arg-type]
    scales = 4096 * 4
    assert sizes == {"fp32": 16 << 20, "bf16": 8 << 20, "int8": (4 << 20) + scales, "fp8": (4 << 20) + scales}
