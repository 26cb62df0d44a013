"""Samples codes from logits: the one definition, for the CPU, for the GPU, and for the tests of the fused GPU kernel.

Codes are drawn by the Gumbel-max trick: the argmax of logits / temperature + Gumbel noise is distributed as their
softmax (Gumbel 1954; Maddison et al. 2014, "A* Sampling"). The noise is a function of the request's seed, of how many
samples it has drawn, of the codebook and of the code (`philox.gumbel_noise`). So a seed makes the same codes whatever
other requests share the batch, in whichever row, and whenever the request joined.

Top-k and top-p are thresholds, so that no sort is needed: top-k keeps the logits that are at least the k-th largest;
of those, top-p keeps the codes for which all more likely ones together have at most that probability (Holtzman et al.
2019). Codes with exactly equal logits are kept or dropped together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.philox import gumbel_noise

_MIN_TEMPERATURE = 1e-6
_TOP_P_DISABLED = 2.0
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
    """fp32. `_TOP_P_DISABLED` keeps all codes."""
    seed: Tensor
    """int64."""

    @classmethod
    def from_parameters(cls, parameters: Sequence[GenerationParameters], card: int) -> SamplingTensors:
        """The tensors on the CPU. `card` is the number of codes of a codebook."""
        floats = torch.tensor([[p.guidance_scale, p.temperature, p.top_p or _TOP_P_DISABLED] for p in parameters])
        guidance_scale, temperature, top_p = floats.float().unbind(1)
        top_k = [min(p.top_k, card) if p.top_k > 0 else card for p in parameters]
        seeds = [p.seed for p in parameters]
        return cls(guidance_scale, temperature, torch.tensor(top_k), top_p, torch.tensor(seeds))


def sample(
    logits: Tensor, parameters: SamplingTensors, sample_counts: Tensor, *, max_top_k: int, uses_top_p: bool
) -> Tensor:
    """logits: fp32 [B, 2, K, card], conditional and unconditional → codes: int64 [B, K].

    sample_counts: int64 [B], how many samples each request has drawn before. No request has a `top_k` above
    `max_top_k`, and none a `top_p` unless `uses_top_p`; both only save work. Neither reads a tensor on the host.
    """
    conditional, unconditional = logits.unbind(1)
    guided = unconditional + (conditional - unconditional) * parameters.guidance_scale[:, None, None]  # [B, K, card]
    card = guided.shape[-1]
    kept, codes = guided.topk(min(max_top_k, card), sorted=True)  # [B, K, max_top_k], descending
    index = (parameters.top_k - 1).clamp_max(kept.shape[-1] - 1)[:, None, None].expand(-1, kept.shape[1], 1)
    excluded = kept < kept.gather(-1, index)
    temperature = parameters.temperature[:, None, None]
    if uses_top_p:
        scaled = (kept / temperature.clamp_min(_MIN_TEMPERATURE)).masked_fill(excluded, float("-inf"))
        excluded = excluded | (_preceding(scaled) > parameters.top_p[:, None, None])
    codebooks = torch.arange(kept.shape[1], device=logits.device)[:, None]
    noise = gumbel_noise(parameters.seed[:, None, None], sample_counts[:, None, None], codebooks, codes)
    scores = (kept + temperature * noise).masked_fill_(excluded, float("-inf"))
    return codes.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1)


def _preceding(scaled: Tensor) -> Tensor:
    """The probability of all codes that are more likely than each. scaled: descending, [..., n] → [..., n]."""
    probabilities = scaled.softmax(-1)
    preceding = probabilities.cumsum(-1) - probabilities
    # Of equal logits, all have the probability that precedes the first.
    is_first = torch.ones_like(scaled, dtype=torch.bool)
    is_first[..., 1:] = scaled[..., 1:] < scaled[..., :-1]
    return torch.where(is_first, preceding, -1.0).cummax(-1).values
