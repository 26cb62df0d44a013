"""Linear layers that LoRA adapters add to: y = W x + scale · B (A x), with other adapters in each row of a batch.

Source: Hu et al. 2021, "LoRA"; for batches of several adapters on the weights of one model Sheng et al. 2023, "S-LoRA".
The rows of one adapter are gathered and multiplied together. As the products of `linear` do, a row has the same result
in any batch; rows without adapters are computed by the same calls as in a batch without any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.lm.linear import Linear, build_linear

RowAdapters = Sequence[tuple[AppliedAdapter, ...]]
"""The adapters of each row. Those of a row are in the order of their names, so that they are added in that order."""


@dataclass(frozen=True, slots=True)
class _Factors:
    """The layers of an adapter, ready to be multiplied."""

    a: dict[str, Callable[[Tensor], Tensor]]
    """By layer; of the embedding, a table that is looked up."""
    b: dict[str, Linear]


@dataclass(frozen=True, slots=True)
class _Group:
    """The rows that share an adapter."""

    factors: _Factors
    rows: Tensor
    """int64 [n]"""
    scales: Tensor
    """fp32 [n, 1]"""


class ActiveAdapters:
    """Which adapters the computation that is running applies to which of its rows. All layers of a model share one."""

    def __init__(self) -> None:
        self._factors: WeakKeyDictionary[AdapterWeights, _Factors] = WeakKeyDictionary()
        self._rows: RowAdapters = ()
        self._groups: list[_Group] = []
        """Those of `_rows`."""

    def select(self, rows: RowAdapters) -> None:
        """Until the next call, the layers add these adapters. They may also be called with the first rows alone."""
        if not any(rows):
            self._rows, self._groups = (), []
        elif self._rows != rows:
            self._rows, self._groups = rows, self._group(rows)

    def adapt(self, base: Linear, layer: str) -> Linear:
        """A layer that adds the selected adapters to another."""
        return _AdaptedLinear(base, layer, self)

    def groups(self, layer: str, count: int) -> list[_Group]:
        """The groups among the first `count` rows whose adapters have the layer, in the order to add them."""
        if not self._groups:
            return []
        groups = [group for group in self._groups if layer in group.factors.a]
        if count < len(self._rows):
            groups = [_first_rows(group, count) for group in groups]
        return [group for group in groups if len(group.rows)]

    def embed(self, codes: Tensor, x: Tensor) -> Tensor:
        """Adds to the embeddings x, [n, dim], of codes with their codebooks' offsets, int64 [n, K]."""
        return _add(x, codes, EMBEDDING, self.groups(EMBEDDING, len(x)))

    def _group(self, rows: RowAdapters) -> list[_Group]:
        uses: dict[AdapterWeights, list[tuple[int, float]]] = {}
        for row, own in enumerate(rows):
            for adapter in own:
                uses.setdefault(adapter.weights, []).append((row, adapter.scale))
        return [
            _Group(
                self._prepare(weights),
                torch.tensor([row for row, _ in uses[weights]]),
                torch.tensor([[scale] for _, scale in uses[weights]]),
            )
            for weights in sorted(uses, key=lambda each: each.name)
        ]

    def _prepare(self, weights: AdapterWeights) -> _Factors:
        factors = self._factors.get(weights)
        if factors is None:
            a: dict[str, Callable[[Tensor], Tensor]] = {}
            for name, layer in weights.layers.items():
                a[name] = _Table(layer.a) if name == EMBEDDING else build_linear(layer.a, "fp32")
            factors = _Factors(a, {name: build_linear(layer.b, "fp32") for name, layer in weights.layers.items()})
            self._factors[weights] = factors
        return factors


class _AdaptedLinear:
    """Implements `Linear` with another, and adds the adapters that are active."""

    def __init__(self, base: Linear, name: str, active: ActiveAdapters) -> None:
        self._base = base
        self._name = name
        self._active = active

    def __call__(self, x: Tensor) -> Tensor:
        return _add(self._base(x), x, self._name, self._active.groups(self._name, len(x)))

    def gelu(self, x: Tensor) -> Tensor:
        y = self._base.gelu(x)
        if groups := self._active.groups(self._name, len(x)):
            rows = torch.cat([group.rows for group in groups])
            y[rows] = F.gelu(self(x)[rows])  # The others keep what the fused product gives them.
        return y

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        return _add(self._base.add_residual(x, residual), x, self._name, self._active.groups(self._name, len(x)))

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        if not self._active.groups(self._name, len(x)):
            return self._base.normed(x, norm, gelu=gelu)
        return self.gelu(norm(x)) if gelu else self(norm(x))


class _Table:
    """Looks codes up, int64 [n, K], and sums: [n, rank]."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def __call__(self, codes: Tensor) -> Tensor:
        return F.embedding_bag(codes, self._table, mode="sum")


def _first_rows(group: _Group, count: int) -> _Group:
    is_first = group.rows < count
    return replace(group, rows=group.rows[is_first], scales=group.scales[is_first])


def _add(y: Tensor, x: Tensor, layer: str, groups: Sequence[_Group]) -> Tensor:
    """Adds to y, [n, outputs], in place."""
    for group in groups:
        delta = group.factors.b[layer](group.factors.a[layer](x[group.rows]))
        y.index_add_(0, group.rows, delta.mul_(group.scales))
    return y
