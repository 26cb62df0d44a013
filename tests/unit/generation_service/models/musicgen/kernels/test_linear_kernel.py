"""The fused linear kernel, in Triton's interpreter, against plain PyTorch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="kernels need Triton")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels import linear_kernel  # noqa: E402
from generation_service.models.musicgen.kernels.linear_kernel import choose_tile, fused_linear  # noqa: E402
from generation_service.models.musicgen.kernels.quantized_weights import (  # noqa: E402
    StoredWeights,
    WeightFormat,
    store_weights,
)
from tests.support.tensor_cores import interpreted_with_mma  # noqa: E402

EPSILON = 1e-5
FORMATS: list[WeightFormat] = ["fp32", "bf16", "int8", "fp8"]


class Layer:
    """Random weights and inputs of a layer with a normalization and a residual."""

    def __init__(self, rows: int, outputs: int, inputs: int, weight_format: WeightFormat = "bf16") -> None:
        generator = torch.Generator().manual_seed(1)

        def draw(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator)

        self.weights = store_weights(draw(outputs, inputs) * inputs**-0.5, weight_format)
        self.x = draw(rows, inputs) * torch.logspace(-1, 1, rows)[:, None] + draw(rows, 1)
        self.residual = draw(rows, outputs)
        self.norm = (draw(inputs), draw(inputs), EPSILON)

    def normed(self) -> Tensor:
        return torch.layer_norm(self.x, self.x.shape[1:], self.norm[0], self.norm[1], EPSILON)


def product(x: Tensor, weights: StoredWeights) -> Tensor:
    """What the kernel should compute, without the rounding of fp32 sums."""
    rounded = x.to(weights.product_dtype).double()
    return rounded @ weights.dequantized().double().t()


def error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(2, 32, 1024), (35, 40, 96), (1, 8, 24)])
def test_every_variant_equals_pytorch(weight_format: WeightFormat, rows: int, outputs: int, inputs: int) -> None:
    layer = Layer(rows, outputs, inputs, weight_format)
    with interpreted_with_mma():
        plain = fused_linear(layer.x, layer.weights)
        added = fused_linear(layer.x.bfloat16(), layer.weights, residual=layer.residual)
        normed = fused_linear(layer.x, layer.weights, norm=layer.norm)
        activated = fused_linear(layer.x, layer.weights, norm=layer.norm, gelu=True)
    assert plain.dtype == added.dtype == normed.dtype == torch.float32
    assert error(plain, product(layer.x, layer.weights)) < 1e-6
    assert error(added, product(layer.x.bfloat16(), layer.weights) + layer.residual) < 1e-6
    expected = product(layer.normed(), layer.weights)
    # An input next to the middle between two values of bf16 may be rounded to the other one.
    exact = weight_format == "fp32"
    assert error(normed, expected) < (1e-5 if exact else 1e-3)
    assert activated.dtype == layer.weights.product_dtype
    assert error(activated, F.gelu(expected)) < (1e-5 if exact else 4e-3)


@pytest.mark.parametrize("inputs", [1536, 2048, 4096, 6144, 8192])
def test_all_inputs_of_the_larger_models(inputs: int) -> None:
    layer = Layer(3, 16, inputs)
    with interpreted_with_mma():
        assert error(fused_linear(layer.x, layer.weights), product(layer.x, layer.weights)) < 1e-6
        normed = fused_linear(layer.x, layer.weights, norm=layer.norm)
    assert error(normed, product(layer.normed(), layer.weights)) < 1e-3


def test_a_row_is_the_same_in_any_batch_and_place() -> None:
    layer = Layer(128, 16, 96)

    def run(rows: Tensor) -> Tensor:
        normed = fused_linear(layer.x[rows], layer.weights, norm=layer.norm)
        return fused_linear(layer.x[rows], layer.weights, residual=layer.residual[rows]) + normed

    every = torch.arange(128)
    with interpreted_with_mma():
        expected = run(every)
        for count in (*range(1, 12), 15, 16, 17, 31, 32, 33, 63, 64, 65):
            assert torch.equal(run(every[:count]), expected[:count]), count
            assert torch.equal(run(every[-count:]), expected[-count:]), count
        shuffled = torch.randperm(128, generator=torch.Generator().manual_seed(3))
        assert torch.equal(run(shuffled), expected[shuffled])


def test_a_row_is_the_same_in_tiles_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(40, 80, 512)
    results = {}
    with interpreted_with_mma():
        for programs in (1, 3, 5, 1000):
            monkeypatch.setattr(linear_kernel, "_MIN_PROGRAMS", programs)
            for count in (8, 40):
                tile = choose_tile(count, layer.weights.values, 4)
                results[tile.rows, tile.outputs] = fused_linear(layer.x[:count], layer.weights, norm=layer.norm)[:8]
    assert {outputs for _, outputs in results} == {16, 32, 64}
    assert {rows for rows, _ in results} == {8, 32}
    assert all(torch.equal(result, results[8, 16]) for result in results.values())


def test_rows_may_be_apart() -> None:
    layer = Layer(6, 16, 64)
    with interpreted_with_mma():
        together = fused_linear(
            layer.x[0::2].contiguous(), layer.weights, residual=layer.residual[0::2].contiguous(), norm=layer.norm
        )
        apart = fused_linear(layer.x[0::2], layer.weights, residual=layer.residual[0::2], norm=layer.norm)
    assert torch.equal(apart, together)


def test_a_row_that_is_not_a_number_stays_alone() -> None:
    layer = Layer(4, 16, 64)
    with interpreted_with_mma():
        expected = fused_linear(layer.x, layer.weights, norm=layer.norm)
        layer.x[1] = float("nan")
        result = fused_linear(layer.x, layer.weights, norm=layer.norm)
    others = torch.tensor([0, 2, 3])
    assert result[1].isnan().all()
    assert torch.equal(result[others], expected[others])


def test_normalization_of_a_row_far_from_zero() -> None:
    layer = Layer(3, 16, 1024)
    layer.x += torch.tensor([[0.0], [30.0], [300.0]]) * layer.x.std(1, keepdim=True)
    with interpreted_with_mma():
        normed = fused_linear(layer.x, layer.weights, norm=layer.norm)
    assert error(normed, product(layer.normed(), layer.weights)) < 5e-3


def test_programs_fill_the_device_and_loads_fit_into_its_memory() -> None:
    for outputs, inputs in ((1024, 1024), (3072, 1024), (4096, 1024), (8192, 1024), (2048, 8192)):
        for dtype in (torch.bfloat16, torch.int8):
            weights = torch.empty(outputs, inputs, dtype=dtype)
            for rows in (2, 8, 16, 64, 128, 256):
                tile = choose_tile(rows, weights, 4)
                programs = -(-outputs // tile.outputs) * -(-rows // tile.rows)
                assert programs >= 120 or tile.outputs == 16, (outputs, rows)
                assert tile.stages >= 3, (outputs, rows)
