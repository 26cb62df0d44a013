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
from generation_service.models.musicgen.conditions import MAX_BRANCHES
from generation_service.models.musicgen.kernels import branch_combination, paged_attention, step_ends
from generation_service.models.musicgen.kernels.kernel_selection import (
    Call,
    Candidate,
    Timer,
    choose_kernel,
    usable_implementations,
)
from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS, LayerPages
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat
from generation_service.models.musicgen.kernels.step_ends import FRAMES, POSITION, CodeEmbeddings
from generation_service.models.musicgen.lm.linear_selection import layer_shapes, select_linears
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.decode_state import DecodeState
from generation_service.models.musicgen.sampling import CFG_ROWS, SamplingTensors

_NAMES = ("triton", "triton_pdl", "torch")
"""In the order of preference; the last is the definition. "triton_pdl" are the kernels of "triton", launched early."""
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
_BRANCHES_TOLERANCE = 1e-6
_ENDS_TOLERANCE = 1e-5
"""The sums of the embeddings may have another order."""
_PROMPT_TOKENS = 16


def select_operations(
    config: LmConfig, weight_format: WeightFormat, kv_dtype: torch.dtype, device: torch.device, timer: Timer
) -> tuple[DecodeOperations, tuple[KernelChoice, ...]]:
    """Returns the operations and what was measured. An implementation that fails on the device is not used."""
    linears = select_linears(layer_shapes(config), weight_format, device, timer)
    attention, sampled, combined, ends = (
        choose_kernel(
            operation,
            [
                Candidate(name, partial(prepare, name, config, device))
                for name in usable_implementations(_NAMES, device)
            ],
            timer,
            tolerance=tolerance,
        )
        for operation, prepare, tolerance in (
            (
                f"attention {config.num_heads}x{config.head_dim}",
                partial(_prepare_attention, kv_dtype),
                _ATTENTION_TOLERANCE[kv_dtype],
            ),
            (f"sampling {config.n_q}x{config.card}", _prepare_sampling, _SAMPLING_TOLERANCE),
            (f"branches {config.n_q}x{config.card}", _prepare_branches, _BRANCHES_TOLERANCE),
            (f"step ends {config.n_q}x{config.dim}", _prepare_ends, _ENDS_TOLERANCE),
        )
    )
    append_and_attend, attend = _attention(attention.implementation)
    begin_step, end_step = _ends(ends.implementation)
    operations = DecodeOperations(
        build_linear=linears.build,
        append_and_attend=append_and_attend,
        attend=attend,
        sample_checked=_sampling(sampled.implementation),
        samples_in_one_shape=sampled.implementation != "torch",
        combine_branches=_branches(combined.implementation),
        begin_step=begin_step,
        end_step=end_step,
    )
    return operations, (*linears.choices, attention, sampled, combined, ends)


def _attention(implementation: str) -> tuple[Any, Any]:
    if implementation == "torch":
        return paged_attention.append_and_attend, paged_attention.attend
    from generation_service.models.musicgen.kernels import attention_kernel as kernel

    return _launched(implementation, kernel.append_and_attend), _launched(implementation, kernel.attend)


def _sampling(implementation: str) -> Any:
    if implementation == "torch":
        return sampling.sample_checked
    from generation_service.models.musicgen.kernels import sampling_kernel as kernel

    return _launched(implementation, kernel.sample_checked)


def _branches(implementation: str) -> Any:
    if implementation == "torch":
        return branch_combination.combine_branches
    from generation_service.models.musicgen.kernels import branch_combination_kernel as kernel

    return _launched(implementation, kernel.combine_branches)


def _ends(implementation: str) -> tuple[Any, Any]:
    if implementation == "torch":
        return step_ends.begin_step, step_ends.end_step
    from generation_service.models.musicgen.kernels import step_ends_kernel as kernel

    return _launched(implementation, kernel.begin_step), _launched(implementation, kernel.end_step)


def _launched(implementation: str, function: Any) -> Any:
    return partial(function, pdl=True) if implementation == "triton_pdl" else function


def _prepare_attention(
    kv_dtype: torch.dtype, implementation: str, config: LmConfig, device: torch.device, rows: int
) -> Sequence[Call]:
    append_and_attend, attend = _attention(implementation)
    pages_per_row = MEASURED_POSITIONS // PAGE_POSITIONS
    page_shape = (config.num_heads, PAGE_POSITIONS, config.head_dim)
    pages = rows * pages_per_row
    copies = math.ceil(_MEASURED_BYTES / (2 * pages * math.prod(page_shape) * kv_dtype.itemsize))
    drawn = _draw_rows(device, rows, 2, pages_per_row, *page_shape).to(kv_dtype)
    keys, values = (drawn[:, i].flatten(0, 1).repeat(copies, 1, 1, 1) for i in range(2))
    qkv = _draw_rows(device, rows, 3, config.num_heads, config.head_dim)  # Linear layers yield fp32.
    slots = torch.arange(rows // CFG_ROWS, device=device)
    positions = torch.full((rows,), MEASURED_POSITIONS - 1, device=device)
    by_slot = positions.view(-1, CFG_ROWS)
    table = torch.arange(pages, dtype=torch.int32, device=device).view(-1, CFG_ROWS, pages_per_row)
    tokens = torch.tensor([_PROMPT_TOKENS, 0], device=device).repeat(len(slots), 1)
    layer = LayerPages(keys, values)

    def call(table: Tensor) -> Tensor:
        """Self-attention and cross-attention of one layer."""
        attended = append_and_attend(qkv, layer, table, by_slot, MEASURED_POSITIONS, slots)
        text = attend(qkv[:, 0], layer, table, tokens, MEASURED_POSITIONS, slots)
        return torch.cat([attended, text], 1)

    attend(qkv[:, 0], layer, table.flatten(0, 1), positions, MEASURED_POSITIONS)  # A prefill's has to run, too.
    return [partial(call, table + copy * pages) for copy in range(copies)]


def _prepare_sampling(implementation: str, config: LmConfig, device: torch.device, rows: int) -> Sequence[Call]:
    sample = _sampling(implementation)
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


def _prepare_branches(implementation: str, config: LmConfig, device: torch.device, rows: int) -> Sequence[Call]:
    combine, requests = _branches(implementation), rows // CFG_ROWS
    logits = _draw_rows(device, rows, config.n_q, config.card).view(requests, CFG_ROWS, config.n_q, config.card)
    slots = torch.arange(requests, device=device)[:, None]
    sources = torch.cat([slots, (CFG_ROWS * slots).expand(-1, MAX_BRANCHES)], 1)
    weights = _draw_rows(device, requests + 1, 2, MAX_BRANCHES)
    integers = torch.zeros(6, requests, dtype=torch.int64, device=device)
    integers[POSITION], integers[FRAMES] = slots[:, 0], MEASURED_POSITIONS

    def call() -> Tensor:
        combined: Tensor = combine(logits, sources, weights, integers)
        return combined.flatten(0, 1)

    return [call]


def _prepare_ends(implementation: str, config: LmConfig, device: torch.device, rows: int) -> Sequence[Call]:
    begin_step, end_step = _ends(implementation)
    requests = rows // CFG_ROWS
    state = DecodeState(config, requests, MEASURED_POSITIONS, device)
    state.rows.copy_(torch.arange(requests, device=device))
    drawn = _draw_rows(device, requests + 1, config.n_q, state.codes.shape[2])
    state.codes.copy_((drawn.abs() * config.card).long() % config.card)
    integers = state.integers.clone()
    integers[FRAMES] = MEASURED_POSITIONS
    integers[POSITION] = torch.arange(requests + 1, device=device) % (MEASURED_POSITIONS // 2)
    sampled, delays = state.codes[:requests, :, 0].contiguous(), torch.tensor(config.delays, device=device)
    is_finite = sampled % 2 == 0
    embeddings = CodeEmbeddings(
        _draw_rows(device, config.n_q * (config.card + 1), config.dim),
        torch.arange(config.n_q, device=device) * (config.card + 1),
        _draw_rows(device, MEASURED_POSITIONS, config.dim),
    )

    def call() -> Tensor:
        state.integers.copy_(integers)  # An earlier call has advanced them.
        inputs = begin_step(state, requests, embeddings)
        end_step(state, inputs.integers, sampled, is_finite, delays)
        written = state.codes.gather(2, (inputs.integers[POSITION] + 1)[:, None, None].expand(-1, config.n_q, 1))
        ended = torch.cat([state.results, written[..., 0], state.integers[:2, :requests].t()], 1)
        return torch.cat([inputs.x.reshape(requests, -1), ended], 1).repeat_interleave(CFG_ROWS, 0)

    return [call]


def _draw_rows(device: torch.device, rows: int, *shape: int) -> Tensor:
    """Random numbers that are the same in each row whatever the number of rows: [rows, *shape]."""
    drawn = torch.randn(_DRAWN_ROWS, *shape, generator=torch.Generator(device).manual_seed(1), device=device)
    return drawn[torch.arange(rows, device=device) % _DRAWN_ROWS]
