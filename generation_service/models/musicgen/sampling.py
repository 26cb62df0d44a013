"""Samples codes from logits: the one definition, for the CPU, for the GPU, and for the tests of the fused GPU kernel.

Codes are drawn by the Gumbel-max trick: the argmax of logits / temperature + Gumbel noise is distributed as their
softmax (Gumbel 1954; Maddison et al. 2014, "A* Sampling"). The noise is a function of the request's seed, of how many
samples it has drawn, of the codebook and of the code (`philox.gumbel_noise`). So a seed makes the same codes whatever
other requests share the batch, in whichever row, and whenever the request joined.

All that depends on the order of the codes goes by `rank`: the more likely code comes first, of equally likely ones the
lower. Top-k keeps the first k codes; of those, top-p keeps each whose predecessors together have at most that
probability (Holtzman et al. 2019). Of codes with equal scores, the lowest is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.philox import gumbel_noise

CFG_ROWS = 2
"""The rows of a request in a batch: one with the prompt, and one without it for classifier-free guidance."""
MIN_TEMPERATURE = 1e-6
TOP_P_DISABLED = 2.0
"""Larger than any sum of probabilities, whatever its rounding error."""


@dataclass(frozen=True, slots=True)
class SamplingTensors:
    """The sampling parameters of B requests: one tensor per parameter, [B] each, on the device of the logits."""

    guidance_scale: Tensor
    """fp32. The classifier-free guidance scale (Ho & Salimans 2022)."""
    temperature: Tensor
    """fp32. 0 selects the most likely code: greedy decoding."""
    top_k: Tensor
    """int64, 1 to the number of codes."""
    top_p: Tensor
    """fp32. `TOP_P_DISABLED` keeps all codes."""
    seed: Tensor
    """int64."""

    @classmethod
    def from_parameters(cls, parameters: Sequence[GenerationParameters], card: int) -> SamplingTensors:
        """The tensors on the CPU. `card` is the number of codes of a codebook."""
        guidance_scale = torch.tensor([p.guidance_scale for p in parameters], dtype=torch.float32)
        temperature = torch.tensor([p.temperature for p in parameters], dtype=torch.float32)
        top_p = torch.tensor([p.top_p or TOP_P_DISABLED for p in parameters], dtype=torch.float32)
        top_k = [min(p.top_k, card) if p.top_k > 0 else card for p in parameters]
        seeds = [p.seed for p in parameters]
        return cls(guidance_scale, temperature, torch.tensor(top_k), top_p, torch.tensor(seeds))


def sample(
    logits: Tensor, parameters: SamplingTensors, sample_counts: Tensor, *, max_top_k: int, uses_top_p: bool
) -> Tensor:
    """logits: fp32 [B, 2, K, card], conditional and unconditional → codes: int64 [B, K].

    sample_counts: int64 [B], how many samples each request has drawn before. No request has a `top_k` above
    `max_top_k`, and none a `top_p` unless `uses_top_p`; both only save work. Reads no tensor on the host.
    Where logits are not finite, the codes mean nothing, but are codes.
    """
    conditional, unconditional = logits.unbind(1)
    guided = unconditional + (conditional - unconditional) * parameters.guidance_scale[:, None, None]  # [B, K, card]
    card = guided.shape[-1]
    ranks = rank(guided).topk(min(max_top_k, card), sorted=True).values  # [B, K, n], n: at most max_top_k
    codes = (card - 1) - ranks % card
    kept = guided.gather(-1, codes)
    excluded = torch.arange(kept.shape[-1], device=kept.device) >= parameters.top_k[:, None, None]
    temperature = parameters.temperature[:, None, None]
    if uses_top_p:
        scaled = (kept / temperature.clamp_min(MIN_TEMPERATURE)).masked_fill_(excluded, float("-inf"))
        probabilities = scaled.softmax(-1)
        excluded = excluded | (probabilities.cumsum(-1) - probabilities > parameters.top_p[:, None, None])
    codebooks = torch.arange(kept.shape[1], device=kept.device)[:, None]
    noise = gumbel_noise(parameters.seed[:, None, None], sample_counts[:, None, None], codebooks, codes)
    scores = (kept + temperature * noise).masked_fill_(excluded, float("-inf"))
    return codes.masked_fill_(scores < scores.amax(-1, keepdim=True), card).amin(-1)


def sample_checked(
    logits: Tensor, parameters: SamplingTensors, sample_counts: Tensor, *, max_top_k: int, uses_top_p: bool
) -> tuple[Tensor, Tensor]:
    """`sample`, and whether all logits of a codebook are finite numbers: bool [B, K]."""
    codes = sample(logits, parameters, sample_counts, max_top_k=max_top_k, uses_top_p=uses_top_p)
    return codes, logits.isfinite().all(-1).all(1)


def rank(logits: Tensor) -> Tensor:
    """fp32 [..., card] → int64, different for each code: the higher, the earlier the code comes in the order."""
    card = logits.shape[-1]
    bits = logits.view(torch.int32)
    # The bits of floats are ordered as the floats, but those of negative ones in reverse.
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return ordered.long().mul_(card).add_(torch.arange(card - 1, -1, -1, device=logits.device))
