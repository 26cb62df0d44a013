"""The two ends of a decode step as one Triton kernel each: the same functions as `step_ends`, for NVIDIA GPUs.

With programmatic dependent launch, as the package explains, the first kernel lets the step's next one start early, and
the last one starts early, but lets nobody start before it has ended.
"""

# Triton's decorator and the functions that it compiles have no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from generation_service.models.musicgen.kernels.step_ends import (
    FRAMES,
    POSITION,
    PROMPT_FRAMES,
    SAMPLE_COUNT,
    CodeEmbeddings,
    StepInputs,
    StepState,
)
from generation_service.models.musicgen.sampling import CFG_ROWS

_BLOCK = 512
"""Channels per program: few, because each waits for a chain of loads, slot → position → code → embedding."""
_WARPS = 4


def begin_step(state: StepState, batch: int, embeddings: CodeEmbeddings, *, pdl: bool = False) -> StepInputs:
    """See `step_ends.begin_step`. The sum has the order of the codebooks."""
    (integer_rows, slots), float_rows, codebooks = state.integers.shape, len(state.floats), state.codes.shape[1]
    dim, device = embeddings.codes.shape[1], state.codes.device
    x = torch.empty(CFG_ROWS * batch, dim, device=device)
    integers = torch.empty(integer_rows, batch, dtype=torch.int64, device=device)
    floats = torch.empty(float_rows, batch, device=device)
    _begin[batch, triton.cdiv(dim, _BLOCK)](
        *(state.rows, state.codes, state.integers, state.floats),
        *(embeddings.codes, embeddings.offsets, embeddings.positions),
        *(x, integers, floats, batch, slots, state.codes.shape[2]),
        position_row=POSITION,
        codebooks=codebooks,
        dim=dim,
        block=_BLOCK,
        integer_rows=integer_rows,
        float_rows=float_rows,
        most_rows=triton.next_power_of_2(max(integer_rows, float_rows)),
        rows_per_slot=CFG_ROWS,
        pdl=pdl and not knobs.runtime.interpret,
        num_warps=_WARPS,
    )
    return StepInputs(x, integers, floats)


def end_step(
    state: StepState, integers: Tensor, sampled: Tensor, is_finite: Tensor, delays: Tensor, *, pdl: bool = False
) -> None:
    """See `step_ends.end_step`."""
    batch, codebooks = sampled.shape
    _end[(batch,)](
        *(state.rows, state.codes, state.integers, state.results),
        *(integers.contiguous(), sampled.contiguous(), is_finite.contiguous(), delays),
        *(batch, state.integers.shape[1], state.codes.shape[2]),
        position_row=POSITION,
        count_row=SAMPLE_COUNT,
        prompt_row=PROMPT_FRAMES,
        frames_row=FRAMES,
        codebooks=codebooks,
        block=triton.next_power_of_2(codebooks),
        pdl=pdl and not knobs.runtime.interpret,
        num_warps=1,
        launch_pdl=pdl,
    )


@triton.jit(do_not_specialize=["batch", "slots", "columns"])
def _begin(
    rows,
    codes,
    integers,
    floats,
    embedding,
    offsets,
    positions,
    x,
    own_integers,
    own_floats,
    batch,
    slots,
    columns,
    position_row: tl.constexpr,
    codebooks: tl.constexpr,
    dim: tl.constexpr,
    block: tl.constexpr,
    integer_rows: tl.constexpr,
    float_rows: tl.constexpr,
    most_rows: tl.constexpr,
    rows_per_slot: tl.constexpr,
    pdl: tl.constexpr,
):
    if pdl:
        gdc_launch_dependents()
    request = tl.program_id(0)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    is_channel = channel < dim
    slot = tl.load(rows + request)
    position = tl.load(integers + position_row * slots + slot)
    total = tl.zeros([block], tl.float32)
    for codebook in tl.static_range(codebooks):
        code = tl.load(codes + (slot * codebooks + codebook) * columns + position) + tl.load(offsets + codebook)
        total += tl.load(embedding + code * dim + channel, is_channel, 0.0)
    total += tl.load(positions + position * dim + channel, is_channel, 0.0)
    for row in tl.static_range(rows_per_slot):
        tl.store(x + (request * rows_per_slot + row) * dim + channel, total, is_channel)
    if tl.program_id(1) == 0:
        field = tl.arange(0, most_rows)
        whole = tl.load(integers + field * slots + slot, field < integer_rows)
        tl.store(own_integers + field * batch + request, whole, field < integer_rows)
        real = tl.load(floats + field * slots + slot, field < float_rows)
        tl.store(own_floats + field * batch + request, real, field < float_rows)


@triton.jit(do_not_specialize=["batch", "slots", "columns"])
def _end(
    rows,
    codes,
    integers,
    results,
    own_integers,
    sampled,
    is_finite,
    delays,
    batch,
    slots,
    columns,
    position_row: tl.constexpr,
    count_row: tl.constexpr,
    prompt_row: tl.constexpr,
    frames_row: tl.constexpr,
    codebooks: tl.constexpr,
    block: tl.constexpr,
    pdl: tl.constexpr,
):
    if pdl:
        gdc_wait()
    request, codebook = tl.program_id(0), tl.arange(0, block)
    is_codebook = codebook < codebooks
    slot = tl.load(rows + request)
    position = tl.load(own_integers + position_row * batch + request)
    count = tl.load(own_integers + count_row * batch + request)
    code = tl.load(sampled + request * codebooks + codebook, is_codebook, 0)
    finite = tl.load(is_finite + request * codebooks + codebook, is_codebook, 1).to(tl.int64)
    frame = position - tl.load(delays + codebook, is_codebook, 0)
    is_new = frame >= tl.load(own_integers + prompt_row * batch + request)
    is_new &= frame < tl.load(own_integers + frames_row * batch + request)
    tl.store(codes + (slot * codebooks + codebook) * columns + position + 1, code, is_codebook & is_new)
    tl.store(results + request * (codebooks + 1) + codebook, code, is_codebook)
    tl.store(results + request * (codebooks + 1) + codebooks, tl.min(finite, 0))
    # The padding slot, the last one, stays at its position, however many rows of a step it has.
    advance = (slot < slots - 1).to(tl.int64)
    tl.store(integers + position_row * slots + slot, position + advance)
    tl.store(integers + count_row * slots + slot, count + advance)
