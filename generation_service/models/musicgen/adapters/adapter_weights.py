"""A LoRA adapter in memory, by the layers that it adds to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.base import AdapterUse
from generation_service.models.musicgen.adapters.adapter_file import LowRank
from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING


@dataclass(frozen=True, slots=True, eq=False)
class LowRankLayer:
    """What an adapter adds to a whole layer: y += B (A x).

    Modules that are rows of one layer, such as the queries and the values of a fused projection, have columns of B of
    their own, which are 0 in the others' rows.
    """

    a: Tensor
    """fp32 [rank, inputs]; of the embedding, whose inputs are codes, the transpose."""
    b: Tensor
    """fp32 [outputs, rank], scaled."""

    @property
    def rank(self) -> int:
        return self.b.shape[1]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AdapterWeights:
    """An adapter that fits the model. Compared by identity: a replaced file is another adapter."""

    name: str
    digest: str
    layers: Mapping[str, LowRankLayer]
    """By the name of the layer, `Target.layer`."""

    @property
    def size_bytes(self) -> int:
        return sum(layer.a.nbytes + layer.b.nbytes for layer in self.layers.values())


@dataclass(frozen=True, slots=True)
class AppliedAdapter:
    """An adapter and the scale that a request applies it with."""

    weights: AdapterWeights
    scale: float


def describe_adapters(adapters: Sequence[AppliedAdapter]) -> str:
    """For example "jazz:0.8 (5f1d…), vinyl (09ab…)", with 16 digits each; empty if there are none."""
    return ", ".join(
        f"{each.weights.name}{'' if each.scale == 1 else f':{each.scale:g}'} ({each.weights.digest})"
        for each in adapters
    )


LoadAdapters = Callable[[Sequence[AdapterUse]], tuple[AppliedAdapter, ...]]
"""Returns the adapters of a request, sorted by name. Raises InvalidArgument if one does not fit the model."""


def load_none(uses: Sequence[AdapterUse]) -> tuple[AppliedAdapter, ...]:
    """`LoadAdapters` for a model without adapters."""
    return ()


def combine_modules(name: str, digest: str, modules: Sequence[LowRank]) -> AdapterWeights:
    """Puts the modules of each layer together."""
    by_layer: dict[str, list[LowRank]] = {}
    for module in modules:
        by_layer.setdefault(module.target.layer, []).append(module)
    return AdapterWeights(name, digest, {layer: _combine(parts) for layer, parts in by_layer.items()})


def _combine(modules: Sequence[LowRank]) -> LowRankLayer:
    first = modules[0].target
    rank = sum(len(module.a) for module in modules)
    a, b = torch.zeros(rank, first.layer_inputs), torch.zeros(first.layer_outputs, rank)
    column = 0
    for module in modules:
        target, end = module.target, column + len(module.a)
        a[column:end, target.input : target.input + target.inputs] = module.a
        b[target.output : target.output + target.outputs, column:end] = module.b
        column = end
    return LowRankLayer(a.t().contiguous() if first.layer == EMBEDDING else a, b)
