"""The adapters of the requests that are running, in tensors at fixed addresses for captured steps to read.

The bank has a few places. The factors of all places are one matrix each, so that a layer adds all adapters of a batch
with two products, y += ((x Aᵀ) · scales) Bᵀ, where a row's scales are 0 for the places of other requests' adapters. It
is more arithmetic than to gather each row's own factors, but reads them once for all rows and needs no indices.

The rank of a place is a multiple of 16 and the number of places one of 4, so that `linear_kernel` sums an adapter's
products within one warp and in the same order wherever its place is: a row has the same result in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.adapters.adapter_targets import EMBEDDING, HEADS, TEXT_PROJECTION
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, LowRankLayer
from generation_service.models.musicgen.kernels.quantized_weights import StoredWeights
from generation_service.models.musicgen.lm.device_linear import (
    DeviceLinear,
    LinearImplementation,
    TorchLinear,
    TritonLinear,
    bind_device_linear,
)
from generation_service.models.musicgen.lm.kv_cache import RETRY_SECONDS
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.lm.linear import Linear
from generation_service.models.musicgen.resident.branches import ResidentRow
from generation_service.models.musicgen.resident.step_graphs import StepGraphs

PLACES = 8
"""The number of different adapters in a batch. Those of a model as large as musicgen-large, with a rank of 16 for all
layers, take 107 MB each in bf16."""
RANK_STEP = 16


@dataclass(slots=True)
class _Place:
    """One adapter in the bank, and how many open requests use it."""

    weights: AdapterWeights | None = None
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Layer:
    """The factors of all places for one layer."""

    rank: int
    """Of a place."""
    a: Tensor
    """[PLACES rank, inputs]; of the embedding its transpose."""
    b: Tensor
    """[outputs, PLACES rank]"""
    down: Callable[..., Tensor]
    up: DeviceLinear

    def write(self, place: int, factors: LowRankLayer | None, *, is_table: bool) -> None:
        """Replaces what the place has; None by nothing."""
        columns = slice(place * self.rank, (place + 1) * self.rank)
        a = self.a.t() if is_table else self.a
        a[columns], self.b[:, columns] = 0, 0
        if factors is not None:
            used = slice(columns.start, columns.start + factors.rank)
            a[used].copy_(factors.a.t() if is_table else factors.a)
            self.b[:, used].copy_(factors.b)


@dataclass(slots=True, eq=False)
class AdapterBank:
    """Used on one thread and, on a GPU, on the stream of the steps."""

    device: torch.device
    slots: int
    """The number of slots of the decode state, without the padding slot."""
    version: int = 0
    """Changes with the addresses of the tensors: steps that were captured with another version must not be replayed. 0
    before any request had adapters, when nothing has to be acquired for those that have none."""
    scales: Tensor = field(init=False)
    """fp32 [slots + 1, PLACES]"""
    _layers: dict[str, _Layer] = field(default_factory=dict)
    _bases: dict[str, Linear] = field(default_factory=dict)
    _places: list[_Place] = field(default_factory=lambda: [_Place() for _ in range(PLACES)])
    _row_scales: Tensor | None = None

    def __post_init__(self) -> None:
        self.scales = torch.zeros(self.slots + 1, PLACES, device=self.device)

    def adapt(self, base: Linear, layer: str) -> Linear:
        """A layer that adds the selected adapters to another."""
        self._bases[layer] = base
        return _BankLinear(base, layer, self)

    def acquire(self, adapters: Sequence[AppliedAdapter], slots: Sequence[int]) -> None:
        """Puts the adapters of a request, if they are not there yet, into places, and writes the scales of its slots.

        Raises ResourceExhausted if other requests use the places.
        """
        scales = torch.zeros(PLACES)
        taken: list[_Place] = []
        try:
            for adapter in adapters:
                index = self._find_place(adapter.weights)
                self._places[index].users += 1
                taken.append(self._places[index])
                scales[index] = adapter.scale
        except BaseException:
            for place in taken:
                place.users -= 1
            raise
        if self.device.type == "cuda":
            scales = scales.pin_memory()  # So that the copy does not wait for the steps that are running.
        for slot in slots:
            self.scales[slot].copy_(scales, non_blocking=True)

    def open_row(self, row: ResidentRow, adapters: tuple[AppliedAdapter, ...], graphs: StepGraphs) -> None:
        """`acquire` for a new row. Drops the captured steps that can't be replayed any more."""
        version = self.version
        try:
            self.acquire(adapters, row.slots)
        finally:
            if version != self.version:
                graphs.discard(lambda shape: getattr(shape, "adapters", 0) > 0)
        row.adapters = adapters

    def version_for(self, rows: Sequence[ResidentRow]) -> int:
        """What the shape of a computation for these rows says of their adapters: 0 if they have none."""
        return self.version if any(row.adapters for row in rows) else 0

    def release(self, adapters: Sequence[AppliedAdapter]) -> None:
        """Makes the places of a request free for others, but leaves what is in them, and the scales of its slots."""
        for adapter in adapters:
            self._places[self._index_of(adapter.weights)].users -= 1

    def select(self, slots: Tensor | None, rows_per_slot: int = 1) -> None:
        """Until the next call, the layers add the adapters of these slots, int64 [n], each for `rows_per_slot` rows, or
        none."""
        if slots is None:
            self._row_scales = None
        else:
            scales = self.scales[slots][:, None]  # [n, 1, PLACES]
            self._row_scales = scales.expand(-1, rows_per_slot, -1).flatten(0, 1)

    def has(self, layer: str) -> bool:
        """Whether there is anything to add to a layer."""
        return self._row_scales is not None and layer in self._layers

    def add(self, layer: str, x: Tensor, y: Tensor, norm: LayerNorm | None = None) -> Tensor:
        """y + B A x for a layer that `has` says, of x or norm(x): [rows, inputs] → fp32 [rows, outputs]."""
        factors, scales = self._layers[layer], self._row_scales
        assert scales is not None
        down = factors.down(x) if norm is None else factors.down.normed(x, norm)  # type: ignore[attr-defined]
        scaled = down.view(len(x), PLACES, factors.rank) * scales[:, :, None]
        return factors.up.add_residual(scaled.flatten(1), y)

    def _find_place(self, weights: AdapterWeights) -> int:
        if (index := self._index_of(weights)) >= 0:
            return index
        index = min(range(PLACES), key=lambda each: (self._places[each].users, self._places[each].weights is not None))
        if self._places[index].users:
            raise ResourceExhausted(
                f"the running generations use {PLACES} adapters, the most that fit into a batch; retry when one has "
                "finished",
                reason="BATCH_FULL",
                retry_after_seconds=RETRY_SECONDS,
            )
        self._reserve_ranks(weights)
        self._places[index].weights = weights
        for layer in self._layers:
            self._write(layer, index)
        return index

    def _index_of(self, weights: AdapterWeights) -> int:
        return next((index for index, place in enumerate(self._places) if place.weights is weights), -1)

    def _reserve_ranks(self, weights: AdapterWeights) -> None:
        """Makes the places large enough for one more adapter."""
        for name, factors in weights.layers.items():
            rank = -(-factors.rank // RANK_STEP) * RANK_STEP
            if name == TEXT_PROJECTION or (name in self._layers and rank <= self._layers[name].rank):
                continue
            self._layers[name] = self._build_layer(name, rank, factors)
            self.version += 1
            for place in range(PLACES):
                self._write(name, place)

    def _write(self, layer: str, place: int) -> None:
        weights = self._places[place].weights
        factors = None if weights is None else weights.layers.get(layer)
        self._layers[layer].write(place, factors, is_table=layer == EMBEDDING)

    def _build_layer(self, name: str, rank: int, factors: LowRankLayer) -> _Layer:
        is_table = name == EMBEDDING
        base = self._bases[HEADS if is_table else name]
        implementation: LinearImplementation = "triton" if isinstance(base, TritonLinear) else "torch"
        dtype = torch.float32 if is_table else _product_dtype(base)
        inputs, outputs = factors.a.shape[0 if is_table else 1], len(factors.b)
        a = torch.zeros(PLACES * rank, inputs, dtype=dtype, device=self.device)
        b = torch.zeros(outputs, PLACES * rank, dtype=dtype, device=self.device)
        down: Callable[..., Tensor] = bind_device_linear(StoredWeights(a, None), implementation)
        if is_table:
            a = a.t().contiguous()
            down = _Table(a)
        return _Layer(rank, a, b, down, bind_device_linear(StoredWeights(b, None), implementation))


class _Table:
    """Looks codes up, int64 [n, K], and sums: fp32 [n, rank]."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def __call__(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self._table).float().sum(1)


class _BankLinear:
    """Implements `Linear`. Without adapters, it calls nothing but the layer that it adds to."""

    def __init__(self, base: Linear, layer: str, bank: AdapterBank) -> None:
        self._base = base
        self._layer = layer
        self._bank = bank

    def __call__(self, x: Tensor) -> Tensor:
        y = self._base(x)
        return self._bank.add(self._layer, x, y) if self._bank.has(self._layer) else y

    def gelu(self, x: Tensor) -> Tensor:
        return self._gelu(self(x)) if self._bank.has(self._layer) else self._base.gelu(x)

    def add_residual(self, x: Tensor, residual: Tensor) -> Tensor:
        y = self._base.add_residual(x, residual)
        return self._bank.add(self._layer, x, y) if self._bank.has(self._layer) else y

    def normed(self, x: Tensor, norm: LayerNorm, *, gelu: bool = False) -> Tensor:
        if not self._bank.has(self._layer):
            return self._base.normed(x, norm, gelu=gelu)
        y = self._bank.add(self._layer, x, self._base.normed(x, norm), norm)
        return self._gelu(y) if gelu else y

    def _gelu(self, y: Tensor) -> Tensor:
        return F.gelu(y).to(_product_dtype(self._base))


def _product_dtype(linear: Linear) -> torch.dtype:
    return linear.weights.product_dtype if isinstance(linear, TorchLinear | TritonLinear) else torch.float32
