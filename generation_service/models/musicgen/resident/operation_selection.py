"""Chooses the implementations of the decode step's operations on a GPU, by measuring those that are correct there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.execution import KernelChoice
from generation_service.models.musicgen import sampling
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.kernels import paged_attention
from generation_service.models.musicgen.kernels.kernel_selection import Call, Candidate, Timer, choose_kernel
from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS, LayerPages
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS
from generation_service.models.musicgen.lm.linear_selection import layer_shapes, select_linears
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.sampling import SamplingTensors

_NAMES = ("triton", "torch")
"""In the order of preference; the last is the definition."""
MEASURED_POSITIONS = 768
"""The length of the rows on which attention is measured: half of a window."""
_DRAWN_ROWS = 16
"""Rows of random numbers, which repeat, because fewer numbers are drawn faster."""
_MEASURED_BYTES = 192 << 20
"""Of keys and values: more than an L2 cache holds."""
_ATTENTION_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.02, torch.float8_e4m3fn: 0.02}
"""Of the result's norm. All implementations read the same keys and values, in this type."""
_SAMPLING_TOLERANCE = 0.01
"""The codes are the same, but for a tie that the last bit of a logarithm decides."""


def select_operations(
    config: LmConfig, weight_format: WeightFormat, kv_dtype: torch.dtype, device: torch.device, timer: Timer
) -> tuple[DecodeOperations, tuple[KernelChoice, ...]]:
    """Returns the operations and what was measured. An implementation that fails on the device is not used."""
    linears = select_linears(layer_shapes(config), weight_format, device, timer)
    attention = choose_kernel(
        f"attention {config.num_heads}x{config.head_dim}",
        [Candidate(name, partial(_prepare_attention, name, config, kv_dtype, device)) for name in _NAMES],
        timer,
        tolerance=_ATTENTION_TOLERANCE[kv_dtype],
    )
    sampled = choose_kernel(
        f"sampling {config.n_q}x{config.card}",
        [Candidate(name, partial(_prepare_sampling, name, config, device)) for name in _NAMES],
        timer,
        tolerance=_SAMPLING_TOLERANCE,
    )
    operations = DecodeOperations(
        build_linear=linears.build,
        append_and_attend=_attention(attention.implementation).append_and_attend,
        attend=_attention(attention.implementation).attend,
        sample_checked=_sampling(sampled.implementation).sample_checked,
        samples_in_one_shape=sampled.implementation == "triton",
    )
    return operations, (*linears.choices, attention, sampled)


def _attention(implementation: str) -> Any:
    if implementation == "torch":
        return paged_attention
    from generation_service.models.musicgen.kernels import attention_kernel

    return attention_kernel


def _sampling(implementation: str) -> Any:
    if implementation == "torch":
        return sampling
    from generation_service.models.musicgen.kernels import sampling_kernel

    return sampling_kernel


def _prepare_attention(
    implementation: str,
    config: LmConfig,
    kv_dtype: torch.dtype,
    device: torch.device,
    rows: int,
) -> Sequence[Call]:
    attend = _attention(implementation).append_and_attend
    pages_per_row = MEASURED_POSITIONS // PAGE_POSITIONS
    page_shape = (config.num_heads, PAGE_POSITIONS, config.head_dim)
    pages = rows * pages_per_row
    copies = math.ceil(_MEASURED_BYTES / (2 * pages * math.prod(page_shape) * kv_dtype.itemsize))
    drawn = _draw_rows(device, rows, 2, pages_per_row, *page_shape).to(kv_dtype)
    keys, values = (drawn[:, i].flatten(0, 1).repeat(copies, 1, 1, 1) for i in range(2))
    qkv = _draw_rows(device, rows, 3, config.num_heads, config.head_dim)  # Linear layers yield fp32.
    positions = torch.full((rows,), MEASURED_POSITIONS - 1, device=device)
    table = torch.arange(pages, dtype=torch.int32, device=device).view(rows, pages_per_row)
    layer = LayerPages(keys, values)
    return [partial(attend, qkv, layer, table + copy * pages, positions, MEASURED_POSITIONS) for copy in range(copies)]


def _prepare_sampling(implementation: str, config: LmConfig, device: torch.device, rows: int) -> Sequence[Call]:
    sample = _sampling(implementation).sample_checked
    requests = rows // CFG_ROWS
    parameters = SamplingTensors.from_parameters(
        [GenerationParameters("", 1, seed) for seed in range(requests)], config.card
    )
    on_device = SamplingTensors(*(getattr(parameters, name).to(device) for name in parameters.__slots__))
    logits = _draw_rows(device, requests, CFG_ROWS, config.n_q, config.card)
    counts = torch.zeros(requests, dtype=torch.int64, device=device)

    def call() -> Tensor:
        codes: Tensor = sample(logits, on_device, counts, max_top_k=config.card, uses_top_p=False)[0]
        return codes[:, None].expand(-1, CFG_ROWS, -1).flatten(0, 1)  # As many rows as there are rows of logits.

    return [call]


def _draw_rows(device: torch.device, rows: int, *shape: int) -> Tensor:
    """Random numbers that are the same in each row whatever the number of rows: [rows, *shape]."""
    drawn = torch.randn(_DRAWN_ROWS, *shape, generator=torch.Generator(device).manual_seed(1), device=device)
    return drawn[torch.arange(rows, device=device) % _DRAWN_ROWS]
