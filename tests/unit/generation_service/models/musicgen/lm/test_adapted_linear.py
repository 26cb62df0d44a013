# ruff: noqa: E402
"""Linear layers to which the rows of a batch add adapters of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, LowRankLayer
from generation_service.models.musicgen.lm.adapted_linear import ActiveAdapters
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.lm.linear import Linear, Precision, build_linear

INPUTS, OUTPUTS, ROWS = 64, 192, 9
NORM = LayerNorm(torch.full((INPUTS,), 1.5), torch.full((INPUTS,), 0.1))
FORMS: dict[str, Callable[[Linear, Tensor], Tensor]] = {
    "plain": lambda linear, x: linear(x),
    "gelu": lambda linear, x: linear.gelu(x),
    "add_residual": lambda linear, x: linear.add_residual(x, torch.ones(len(x), OUTPUTS)),
    "normed": lambda linear, x: linear.normed(x, NORM),
    "normed_gelu": lambda linear, x: linear.normed(x, NORM, gelu=True),
}


def draw(name: str, rank: int, layer: str = "0.up") -> AdapterWeights:
    generator = torch.Generator().manual_seed(rank)
    a, b = torch.randn(rank, INPUTS, generator=generator) / 8, torch.randn(OUTPUTS, rank, generator=generator)
    return AdapterWeights(name, name, {layer: LowRankLayer(a, b)})


JAZZ, VINYL, OTHER_LAYER = draw("jazz", 4), draw("vinyl", 9), draw("other", 2, "1.up")
BATCH = [
    (),
    (AppliedAdapter(JAZZ, 1.0),),
    (AppliedAdapter(VINYL, -0.5),),
    (AppliedAdapter(JAZZ, 0.25), AppliedAdapter(VINYL, 2.0)),
    (AppliedAdapter(OTHER_LAYER, 1.0),),
    (AppliedAdapter(JAZZ, 1.0),),
    (),
    (AppliedAdapter(JAZZ, 1.0), AppliedAdapter(OTHER_LAYER, 1.0)),
    (AppliedAdapter(VINYL, 1.0),),
]


@pytest.fixture(scope="module")
def weight() -> Tensor:
    drawn: Tensor = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1)) / 8
    return drawn


@pytest.fixture(scope="module")
def x() -> Tensor:
    drawn: Tensor = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(2))
    return drawn


def merged(weight: Tensor, adapters: tuple[AppliedAdapter, ...]) -> Linear:
    """A layer whose weights have the adapters of one row."""
    for adapter in adapters:
        if (layer := adapter.weights.layers.get("0.up")) is not None:
            weight = weight + adapter.scale * layer.b @ layer.a
    return build_linear(weight, "fp32")


@pytest.mark.parametrize("form", FORMS)
def test_each_row_adds_its_own_adapters(form: str, weight: Tensor, x: Tensor) -> None:
    active = ActiveAdapters()
    linear = active.adapt(build_linear(weight, "fp32"), "0.up")
    active.select(BATCH)
    for count in (ROWS, 4, 1):
        y = FORMS[form](linear, x[:count])
        for row, adapters in enumerate(BATCH[:count]):
            expected = FORMS[form](merged(weight, adapters), x[row : row + 1])
            torch.testing.assert_close(y[row : row + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("form", FORMS)
def test_row_has_the_same_result_in_any_batch(form: str, precision: Precision, weight: Tensor, x: Tensor) -> None:
    active = ActiveAdapters()
    base = build_linear(weight, precision)
    linear = active.adapt(base, "0.up")
    active.select(BATCH)
    together = FORMS[form](linear, x)
    for row, adapters in enumerate(BATCH):
        active.select([adapters])
        assert torch.equal(FORMS[form](linear, x[row : row + 1]), together[row : row + 1]), row
    without = FORMS[form](base, x)
    assert [bool(torch.equal(a, b)) for a, b in zip(together, without, strict=True)] == [
        all(each.weights is OTHER_LAYER for each in adapters) for adapters in BATCH
    ]


def test_without_adapters_only_the_base_is_called(weight: Tensor, x: Tensor) -> None:
    calls: list[str] = []

    class Base:
        def __getattr__(self, name: str) -> Callable[..., Tensor]:
            calls.append(name)
            return lambda *_arguments, **_options: x

        def __call__(self, x: Tensor) -> Tensor:
            calls.append("__call__")
            return x

    active = ActiveAdapters()
    linear = active.adapt(Base(), "0.up")
    for rows in ((), [(), ()], [(AppliedAdapter(OTHER_LAYER, 1.0),)] * ROWS):
        active.select(rows)
        calls.clear()
        assert all(form(linear, x) is x for form in FORMS.values())
        assert calls == ["__call__", "gelu", "add_residual", "normed", "normed"]


def test_embeddings_of_codes_are_added(x: Tensor) -> None:
    table, b = torch.randn(10, 3), torch.randn(INPUTS, 3)
    adapter = AppliedAdapter(AdapterWeights("jazz", "", {EMBEDDING: LowRankLayer(table, b)}), 0.5)
    active = ActiveAdapters()
    active.select([(adapter,), ()])
    codes = torch.tensor([[1, 7], [2, 8]])
    y = active.embed(codes, x[:2].clone())
    expected = x[:2].clone()
    expected[0] += 0.5 * F.linear(table[1] + table[7], b)
    torch.testing.assert_close(y, expected)
