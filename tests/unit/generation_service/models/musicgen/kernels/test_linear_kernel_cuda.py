"""The fused linear kernel on a GPU: results, independence of the batch, and early launches in a CUDA graph."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="kernels need Triton")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels.linear_kernel import fused_linear  # noqa: E402
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat, store_weights  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

EPSILON = 1e-5
SHAPES = [(1024, 1024), (3072, 1024), (1024, 4096), (1536, 6144), (8192, 2048)]


def draw(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator("cuda").manual_seed(sum(size)), device="cuda")


@pytest.mark.parametrize("weight_format", ["fp32", "bf16", "int8", "fp8"])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_results_are_right_and_do_not_depend_on_the_batch(
    weight_format: WeightFormat, outputs: int, inputs: int
) -> None:
    if weight_format == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no fp8")
    weights = store_weights(draw(outputs, inputs) * inputs**-0.5, weight_format)
    x, residual = draw(256, inputs), draw(256, outputs)
    norm = (draw(inputs), draw(inputs), EPSILON)

    def run(rows: Tensor) -> tuple[Tensor, Tensor]:
        normed = fused_linear(x[rows], weights, norm=norm, gelu=True)
        return normed, fused_linear(x[rows].to(weights.product_dtype), weights, residual=residual[rows])

    every = torch.arange(256, device="cuda")
    activated, added = run(every)
    exact = weights.dequantized().double().t()
    normed = torch.layer_norm(x, (inputs,), norm[0], norm[1], EPSILON).to(weights.product_dtype).double()
    expected = F.gelu(normed @ exact)
    assert (activated - expected).norm() / expected.norm() < 5e-3
    expected = x.to(weights.product_dtype).double() @ exact + residual
    assert (added - expected).norm() / expected.norm() < 1e-5
    places = [*(every[:count] for count in (1, 2, 4, 8, 9, 16, 32, 33, 64, 128)), every[-7:], every.flip(0)]
    for rows in places:
        for result, whole in zip(run(rows), (activated, added), strict=True):
            assert torch.equal(result, whole[rows]), len(rows)


def test_early_launches_in_a_graph_keep_the_order() -> None:
    """Each layer reads what the one before it writes, so one that doesn't wait reads what an earlier replay left."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("this GPU has no programmatic dependent launch")
    layers = [store_weights(draw(1024, 1024) * 1024**-0.5, "bf16") for _ in range(48)]
    norm = (torch.ones(1024, device="cuda"), torch.zeros(1024, device="cuda"), EPSILON)

    def run(x: Tensor, pdl: bool) -> Tensor:
        for weights in layers:
            x = fused_linear(fused_linear(x, weights, norm=norm, pdl=pdl), weights, residual=x, pdl=pdl)
        return x

    source = draw(2, 1024)
    run(source, True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(source, True)
    for scale in (1.0, -3.0, 0.5):
        source.copy_(scale * draw(2, 1024))
        graph.replay()
        assert torch.equal(result, run(source, False))
