# ruff: noqa: E402
"""The adapters of running requests at fixed addresses."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.adapters.adapter_targets import HEADS
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, LowRankLayer
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat
from generation_service.models.musicgen.lm.device_linear import build_device_linear
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.lm.linear import Linear
from generation_service.models.musicgen.resident.adapter_bank import PLACES, AdapterBank
from generation_service.models.musicgen.resident.branches import ResidentRow
from generation_service.models.musicgen.resident.decode_step import PromptShape
from generation_service.models.musicgen.resident.page_pool import RequestPages
from generation_service.models.musicgen.resident.step_graphs import DirectCalls

INPUTS, OUTPUTS, SLOTS = 64, 96, 6
NORM = LayerNorm(torch.full((INPUTS,), 1.5), torch.full((INPUTS,), 0.1))


def draw(name: str, rank: int = 4, layer: str = "0.up") -> AdapterWeights:
    generator = torch.Generator().manual_seed(len(name) + rank)
    a, b = torch.randn(rank, INPUTS, generator=generator) / 8, torch.randn(OUTPUTS, rank, generator=generator)
    return AdapterWeights(name, name, {layer: LowRankLayer(a, b)})


def delta(weights: AdapterWeights, layer: str = "0.up") -> Tensor:
    return weights.layers[layer].b @ weights.layers[layer].a


@pytest.fixture
def bank() -> AdapterBank:
    return AdapterBank(torch.device("cpu"), SLOTS)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1)) / 8


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, INPUTS, generator=torch.Generator().manual_seed(2))


def adapt(bank: AdapterBank, weight: Tensor, weight_format: WeightFormat = "fp32") -> Linear:
    bank.adapt(build_device_linear(weight, weight_format, "torch"), HEADS)
    return bank.adapt(build_device_linear(weight, weight_format, "torch"), "0.up")


@pytest.mark.parametrize(("weight_format", "tolerance"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_rows_of_a_slot_add_its_adapters(
    bank: AdapterBank, weight: Tensor, x: Tensor, weight_format: WeightFormat, tolerance: float
) -> None:
    linear = adapt(bank, weight, weight_format)
    jazz, vinyl = draw("jazz"), draw("vinyl", rank=20)
    bank.acquire([AppliedAdapter(jazz, 0.5), AppliedAdapter(vinyl, 2.0)], [0, 3])
    bank.acquire([AppliedAdapter(vinyl, -1.0)], [1])
    bank.select(torch.tensor([3, SLOTS, 1]), rows_per_slot=2)
    sums = {0: weight + 0.5 * delta(jazz) + 2 * delta(vinyl), 1: weight, 2: weight - delta(vinyl)}
    expected = torch.cat([F.linear(x[2 * slot : 2 * slot + 2], sums[slot]) for slot in range(3)])
    normed = torch.cat([F.linear(NORM(x[2 * slot : 2 * slot + 2]), sums[slot]) for slot in range(3)])
    residual = torch.ones(6, OUTPUTS)
    for y, want in (
        (linear(x), expected),
        (linear.add_residual(x, residual), residual + expected),
        (linear.gelu(x).float(), F.gelu(expected)),
        (linear.normed(x, NORM), normed),
        (linear.normed(x, NORM, gelu=True).float(), F.gelu(normed)),
    ):
        torch.testing.assert_close(y, want, rtol=tolerance, atol=tolerance)
    bank.select(None)
    torch.testing.assert_close(linear(x), F.linear(x, weight), rtol=tolerance, atol=tolerance)


def test_version_changes_only_when_a_layer_or_a_rank_is_new(bank: AdapterBank, weight: Tensor) -> None:
    adapt(bank, weight)
    assert bank.version == 0
    for weights, version in (
        (draw("a", rank=4), 1),
        (draw("b", rank=16), 1),
        (draw("c", rank=17), 2),
        (draw("d", layer=HEADS), 3),
        (draw("e", rank=32), 3),
    ):
        bank.acquire([AppliedAdapter(weights, 1.0)], [0])
        assert bank.version == version


def test_adapters_stay_right_when_the_places_grow(bank: AdapterBank, weight: Tensor, x: Tensor) -> None:
    linear = adapt(bank, weight)
    first = draw("a", rank=4)
    bank.acquire([AppliedAdapter(first, 1.0)], [0])
    bank.acquire([AppliedAdapter(draw("b", rank=40), 1.0)], [1])
    bank.select(torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(linear(x), F.linear(x, weight + delta(first)), rtol=1e-4, atol=1e-4)


def test_place_of_a_closed_request_is_used_again(bank: AdapterBank, weight: Tensor, x: Tensor) -> None:
    linear = adapt(bank, weight)
    adapters = [AppliedAdapter(draw(str(index), rank=index + 1), 1.0) for index in range(PLACES + 1)]
    for adapter in adapters[:PLACES]:
        bank.acquire([adapter], [0])
    with pytest.raises(ResourceExhausted, match=f"use {PLACES} adapters") as caught:
        bank.acquire([adapters[0], adapters[PLACES]], [1])
    assert caught.value.reason == "BATCH_FULL"
    bank.acquire([adapters[0]], [2])
    bank.release([adapters[0]])
    bank.release([adapters[5]])
    bank.acquire([adapters[PLACES]], [1])
    for slot, adapter in ((1, adapters[PLACES]), (2, adapters[0])):
        bank.select(torch.full((6,), slot))
        torch.testing.assert_close(linear(x), F.linear(x, weight + delta(adapter.weights)), rtol=1e-4, atol=1e-4)


def test_steps_with_smaller_places_are_dropped_also_if_the_request_is_refused(
    bank: AdapterBank, weight: Tensor
) -> None:
    adapt(bank, weight)
    for index in range(PLACES - 1):
        bank.acquire([AppliedAdapter(draw(str(index)), 1.0)], [0])
    graphs, old, plain = DirectCalls(), PromptShape(64, bank.version), PromptShape(64)
    for shape in old, plain:
        graphs.capture(shape, lambda: None)
    row = ResidentRow(
        GenerationParameters("", 1, 0),
        slots=[1],
        pages=RequestPages(*[np.zeros((2, 1), np.int32)] * 2),
        samples_any=False,
        texts=[],
    )
    adapters = (AppliedAdapter(draw("large", rank=40), 1.0), AppliedAdapter(draw("one too many"), 1.0))
    with pytest.raises(ResourceExhausted):
        bank.open_row(row, adapters, graphs)
    assert row.adapters == ()
    assert old not in graphs
    assert plain in graphs


def test_slot_of_a_request_without_adapters_adds_nothing(bank: AdapterBank, weight: Tensor, x: Tensor) -> None:
    linear = adapt(bank, weight)
    adapter = AppliedAdapter(draw("a"), 1.0)
    bank.acquire([adapter], [4])
    bank.release([adapter])
    bank.acquire([], [4])
    bank.select(torch.full((6,), 4))
    torch.testing.assert_close(linear(x), F.linear(x, weight), rtol=1e-4, atol=1e-4)


def test_row_has_the_same_result_wherever_its_adapters_are_and_whatever_shares_its_batch(
    weight: Tensor, x: Tensor
) -> None:
    """By the kernel, to the last bit; with plain PyTorch the order of the sums is the library's."""
    pytest.importorskip("triton", reason="kernels need Triton")
    from tests.support.tensor_cores import interpreted_with_mma

    jazz, vinyl = AppliedAdapter(draw("jazz", rank=40), 0.7), AppliedAdapter(draw("vinyl", rank=9), -2.0)
    others = [AppliedAdapter(draw(str(index)), 1.0) for index in range(5)]
    results = []
    for before in ([], others[:1], others):
        bank = AdapterBank(torch.device("cpu"), SLOTS)
        bank.adapt(build_device_linear(weight, "bf16", "triton"), HEADS)
        linear = bank.adapt(build_device_linear(weight, "bf16", "triton"), "0.up")
        for other in before:
            bank.acquire([other], [0])
        bank.acquire([jazz, vinyl], [1])
        bank.acquire([vinyl], [2])
        slots = torch.tensor([*([0] * len(before)), 1, 2, SLOTS])
        bank.select(slots)
        rows = torch.cat([torch.randn(len(before), INPUTS), x[:3]])
        with interpreted_with_mma():
            results.append(linear.normed(rows, NORM)[-3:])
            without = build_device_linear(weight, "bf16", "triton").normed(x[2:3], NORM)
        assert torch.equal(results[-1][2:], without)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
