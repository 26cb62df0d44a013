"""Sampling as one Triton kernel: the same functions as `sampling`, for NVIDIA GPUs.

One program samples one codebook of one request. It sorts nothing: the least likely code that top-k or top-p keeps is
found by bisection over integers that are ordered as the codes are (`sampling.rank`), with one count or sum per step.
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

from generation_service.models.musicgen.sampling import MIN_TEMPERATURE, TOP_P_DISABLED, SamplingTensors

_WARPS = 8


def sample(
    logits: Tensor, parameters: SamplingTensors, sample_counts: Tensor, *, max_top_k: int, uses_top_p: bool
) -> Tensor:
    """See `sampling.sample`."""
    return sample_checked(logits, parameters, sample_counts, max_top_k=max_top_k, uses_top_p=uses_top_p)[0]


def sample_checked(
    logits: Tensor,
    parameters: SamplingTensors,
    sample_counts: Tensor,
    *,
    max_top_k: int,
    uses_top_p: bool,
    pdl: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `sampling.sample_checked`. `max_top_k` and `uses_top_p` would save nothing here, and are ignored.

    pdl: programmatic dependent launch, as the package explains.
    """
    requests, _, codebooks, card = logits.shape
    p = parameters
    inputs = (p.guidance_scale, p.temperature, p.top_k, p.top_p, p.seed, sample_counts)
    codes = torch.empty(requests, codebooks, dtype=torch.int64, device=logits.device)
    is_finite = torch.empty(requests, codebooks, dtype=torch.bool, device=logits.device)
    _sample[requests, codebooks](
        *(x.contiguous() for x in (logits, *inputs)),
        codes,
        is_finite,
        codebooks=codebooks,
        card=card,
        block=triton.next_power_of_2(card),
        min_temperature=MIN_TEMPERATURE,
        top_p_disabled=TOP_P_DISABLED,
        pdl=pdl and not knobs.runtime.interpret,
        num_warps=_WARPS,
        launch_pdl=pdl,
        # A fused multiplication and addition rounds once where the reference rounds twice.
        enable_fp_fusion=False,
    )
    return codes, is_finite


# The parameters are rows of one tensor, which are aligned differently in batches of 1, 2 and more requests.
@triton.jit(do_not_specialize_on_alignment=["guidance_scale", "temperature", "top_k", "top_p", "seed", "sample_counts"])
def _sample(
    logits,
    guidance_scale,
    temperature,
    top_k,
    top_p,
    seed,
    sample_counts,
    codes,
    is_finite,
    codebooks: tl.constexpr,
    card: tl.constexpr,
    block: tl.constexpr,
    min_temperature: tl.constexpr,
    top_p_disabled: tl.constexpr,
    pdl: tl.constexpr,
):
    if pdl:
        gdc_launch_dependents()
        gdc_wait()
    request, codebook = tl.program_id(0), tl.program_id(1)
    code = tl.arange(0, block)
    is_code = code < card
    logits += (request * 2 * codebooks + codebook) * card + code
    conditional = tl.load(logits, mask=is_code, other=0.0)
    unconditional = tl.load(logits + codebooks * card, mask=is_code, other=0.0)
    guided = unconditional + (conditional - unconditional) * tl.load(guidance_scale + request)
    bits = guided.to(tl.int32, bitcast=True)
    rank = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64) * card + (card - 1 - code)
    rank = tl.where(is_code, rank, -(1 << 62))
    first = tl.max(rank, 0)
    last = tl.min(tl.where(is_code, rank, first), 0)

    last = _top_k(rank, tl.load(top_k + request), tl.sum(is_code.to(tl.int32), 0), first, last)
    divisor = tl.load(temperature + request)
    limit = tl.load(top_p + request)
    if limit < top_p_disabled:
        scaled = tl.div_rn(guided, tl.maximum(divisor, min_temperature) + tl.zeros_like(guided))
        scaled = tl.where(rank >= last, scaled, float("-inf"))
        last = _top_p(rank, tl.exp(scaled - tl.max(scaled, 0)), limit, first, last)

    noise = _gumbel_noise(tl.load(seed + request), tl.load(sample_counts + request), codebook, code)
    scores = tl.where(rank >= last, guided + divisor * noise, float("-inf"))
    # The lowest code of the highest score; the last one where scores are not numbers.
    sampled = tl.min(tl.where(scores == tl.max(scores, 0), code, card - 1), 0)
    tl.store(codes + request * codebooks + codebook, sampled.to(tl.int64))
    not_finite = (tl.abs(conditional) == float("inf")) | (tl.abs(unconditional) == float("inf"))
    not_finite |= (conditional != conditional) | (unconditional != unconditional)
    tl.store(is_finite + request * codebooks + codebook, tl.max(not_finite.to(tl.int32), 0) == 0)


@triton.jit
def _top_k(rank, top_k, count, first, last):
    """The k-th highest rank, or one between it and the next lower. `count` ranks lie in first … last."""
    end = first + 1
    # At least k ranks are `last` or higher, and fewer are `end` or higher.
    while (count > top_k) & (end - last > 1):
        middle = last + (end - last) // 2
        higher = tl.sum((rank >= middle).to(tl.int32), 0)
        is_enough = higher >= top_k
        last = tl.where(is_enough, middle, last)
        count = tl.where(is_enough, higher, count)
        end = tl.where(is_enough, end, middle)
    return last


@triton.jit
def _top_p(rank, weights, top_p, first, last):
    """The lowest rank that all higher ones together leave within `top_p` of all weights."""
    limit = top_p * tl.sum(weights, 0)
    before = last - 1
    # The codes above `first` are within the limit; those above `before` are not, or `before` is not kept.
    while first - before > 1:
        middle = before + (first - before) // 2
        is_within = tl.sum(tl.where(rank > middle, weights, 0.0), 0) <= limit
        first = tl.where(is_within, middle, first)
        before = tl.where(is_within, before, middle)
    return first


@triton.jit
def _gumbel_noise(seed, sample_count, codebook, code):
    """As `philox.gumbel_noise`; only its logarithms may differ in the last bit."""
    uniform = ((_random_words(seed, sample_count, codebook, code) >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log(-tl.log(uniform))


@triton.jit
def _random_words(seed, sample_count, codebook, code):
    zero = tl.zeros_like(code)
    word, _, _, _ = tl.philox(seed, code, zero + codebook, zero + sample_count.to(tl.int32), zero)
    return word
