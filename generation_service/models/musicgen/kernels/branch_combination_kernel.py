"""The combination of branches as one Triton kernel: the same function as `branch_combination`, for NVIDIA GPUs."""

# Triton's decorator and the functions that it compiles have no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from generation_service.models.musicgen.kernels.step_ends import FRAMES, POSITION, PROMPT_FRAMES

_WARPS = 4


def combine_branches(
    logits: Tensor, sources: Tensor, weights: Tensor, integers: Tensor, *, pdl: bool = False
) -> Tensor:
    """See `branch_combination.combine_branches`. pdl: programmatic dependent launch, as the package explains."""
    batch, _, codebooks, card = logits.shape
    result = torch.empty_like(logits)
    _combine[batch, codebooks](
        *(logits.contiguous(), sources, weights, integers.contiguous(), result, batch),
        position_row=POSITION,
        prompt_row=PROMPT_FRAMES,
        frames_row=FRAMES,
        branches=weights.shape[2],
        codebooks=codebooks,
        card=card,
        block=triton.next_power_of_2(card),
        pdl=pdl and not knobs.runtime.interpret,
        num_warps=_WARPS,
        launch_pdl=pdl,
        # A fused multiplication and addition rounds once where the definition rounds twice.
        enable_fp_fusion=False,
    )
    return result


@triton.jit(do_not_specialize=["batch"])
def _combine(
    logits,
    sources,
    weights,
    integers,
    result,
    batch,
    position_row: tl.constexpr,
    prompt_row: tl.constexpr,
    frames_row: tl.constexpr,
    branches: tl.constexpr,
    codebooks: tl.constexpr,
    card: tl.constexpr,
    block: tl.constexpr,
    pdl: tl.constexpr,
):
    if pdl:
        gdc_launch_dependents()
        gdc_wait()
    request, codebook = tl.program_id(0), tl.program_id(1)
    code = tl.arange(0, block)
    is_code = code < card
    position = tl.load(integers + position_row * batch + request)
    first_frame = tl.load(integers + prompt_row * batch + request)
    frames = tl.load(integers + frames_row * batch + request) - first_frame
    progress = tl.minimum((position - first_frame).to(tl.float32) / frames.to(tl.float32), 1.0)
    sources += request * (1 + branches)
    weights += tl.load(sources) * 2 * branches
    total = tl.zeros([block], tl.float32)
    for branch in tl.static_range(branches):
        first, last = tl.load(weights + branch), tl.load(weights + branches + branch)
        row = tl.load(sources + 1 + branch)
        own = tl.load(logits + (row * codebooks + codebook) * card + code, is_code, 0.0)
        total += own * (first + (last - first) * progress)
    row = tl.load(sources + 1) + 1
    unconditional = tl.load(logits + (row * codebooks + codebook) * card + code, is_code, 0.0)
    result += (request * 2 * codebooks + codebook) * card + code
    tl.store(result, total, is_code)
    tl.store(result + codebooks * card, unconditional, is_code)
