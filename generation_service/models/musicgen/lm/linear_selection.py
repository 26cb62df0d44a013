"""Chooses the implementation of each linear layer of a model by measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from generation_service.models.execution import KernelChoice
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.kernels.kernel_selection import (
    ROW_COUNTS,
    Call,
    Candidate,
    Timer,
    choose_kernel,
    usable_implementations,
)
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat, store_weights
from generation_service.models.musicgen.lm.device_linear import (
    DeviceLinear,
    LinearImplementation,
    bind_device_linear,
    build_device_linear,
)
from generation_service.models.musicgen.lm.layer_norm import LayerNorm

Form = Literal["plain", "normed", "normed_gelu", "add_residual"]

_MEASURED_BYTES = 192 << 20
"""The weights of one measurement: more than an L2 cache holds, which are 50 MB on an H200 and 126 MB on a B200."""
_MAX_CALLS = 128
"""Of one measurement. They are launched by one CUDA graph."""
_TOLERANCE = 0.02
"""Of the result's norm. bf16 rounds to 0.4 % at most, here once before the product and, with GELU, once after it."""
_IMPLEMENTATIONS: tuple[LinearImplementation, ...] = get_args(LinearImplementation)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Linear layers of one shape, as the decode step uses them."""

    outputs: int
    inputs: int
    form: Form
    per_step: int
    """How many of them a decode step runs."""


@dataclass(frozen=True, slots=True)
class LinearSelection:
    """How the linear layers of a model are run on a device."""

    weight_format: WeightFormat
    choices: list[KernelChoice]
    _by_shape: dict[tuple[int, int], LinearImplementation]

    def build(self, weight: Tensor) -> DeviceLinear:
        """weight: fp32 [out, in], on the device."""
        outputs, inputs = weight.shape
        return build_device_linear(weight, self.weight_format, self._by_shape[outputs, inputs])


def layer_shapes(config: LmConfig) -> list[LayerShape]:
    """The linear layers of a model, by shape."""
    dim, hidden, layers = config.dim, config.hidden_dim, config.num_layers
    shapes: dict[tuple[int, int], LayerShape] = {}
    for shape in (
        LayerShape(3 * dim, dim, "normed", layers),
        LayerShape(dim, dim, "add_residual", 3 * layers),  # out, cross_q and cross_out
        LayerShape(hidden, dim, "normed_gelu", layers),
        LayerShape(dim, hidden, "add_residual", layers),
        LayerShape(config.n_q * config.card, dim, "normed", 1),  # the heads of all codebooks
        LayerShape(2 * dim, dim, "plain", 0),  # cross_kv, once per prompt
    ):
        same = shapes.get((shape.outputs, shape.inputs))
        shapes[shape.outputs, shape.inputs] = replace(same, per_step=same.per_step + shape.per_step) if same else shape
    return list(shapes.values())


def select_linears(
    shapes: Sequence[LayerShape],
    weight_format: WeightFormat,
    device: torch.device,
    timer: Timer,
    *,
    row_counts: Sequence[int] = ROW_COUNTS,
    measured_bytes: int = _MEASURED_BYTES,
) -> LinearSelection:
    """Measures every shape on weights drawn at random, which stay in memory only until it is done."""
    choices, by_shape = [], {}
    for shape in shapes:
        choice = choose_kernel(
            f"linear {shape.inputs}x{shape.outputs} {weight_format}",
            _candidates(shape, weight_format, device, max(row_counts), measured_bytes),
            timer,
            tolerance=_TOLERANCE,
            row_counts=row_counts,
        )
        choices.append(choice)
        by_shape[shape.outputs, shape.inputs] = next(name for name in _IMPLEMENTATIONS if name == choice.implementation)
    return LinearSelection(weight_format, choices, by_shape)


def _candidates(
    shape: LayerShape, weight_format: WeightFormat, device: torch.device, max_rows: int, measured_bytes: int
) -> list[Candidate]:
    generator = torch.Generator(device).manual_seed(1)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    weights = store_weights(draw(shape.outputs, shape.inputs) * shape.inputs**-0.5, weight_format)
    x, residual = draw(max_rows, shape.inputs), draw(max_rows, shape.outputs)
    norm = LayerNorm(draw(shape.inputs), draw(shape.inputs))
    count = min(_MAX_CALLS, max(1, measured_bytes // weights.nbytes))
    copies = [replace(weights, values=weights.values.clone()) for _ in range(count)]

    def prepare(implementation: LinearImplementation, rows: int) -> list[Call]:
        layers = [bind_device_linear(copy, implementation) for copy in copies]
        return [_bind(layer, shape.form, x[:rows], norm, residual[:rows]) for layer in layers]

    return [Candidate(name, partial(prepare, name)) for name in usable_implementations(_IMPLEMENTATIONS, device)]


def _bind(layer: DeviceLinear, form: Form, x: Tensor, norm: LayerNorm, residual: Tensor) -> Call:
    if form == "plain":
        return lambda: layer(x)
    if form == "add_residual":
        return lambda: layer.add_residual(x, residual)
    return lambda: layer.normed(x, norm, gelu=form == "normed_gelu")
