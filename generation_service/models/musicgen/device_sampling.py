"""Codes for a whole batch drawn on the device that has the logits, with one transfer and one wait a step.

The random numbers are a hash of a request's seed, its count of draws and the code they are for. So they depend on no
company, and on no generator's state. They are others than those of the CPU's generator: a seed makes the same music
again on the same device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generation_service.models.musicgen.sampling import Sampler

_SMALLEST_TEMPERATURE = 1e-6
_NO_NUCLEUS = 2.0
"""More than any sum of probabilities comes to by rounding."""


def draw_all(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """What suits the logits' device. logits: [B, 2, K, card], with the prompt and without → codes: int64 [B, K]."""
    if logits.device.type == "cpu":
        return torch.stack([sampler.draw(own) for sampler, own in zip(samplers, logits, strict=True)])
    return draw_together(logits, samplers)


def draw_together(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """logits: fp32 [B, 2, K, card], with the prompt and without → codes: int64 [B, K], on the CPU.

    Means what `Sampler.draw` means, by the Gumbel-max trick: the largest of logits / temperature + Gumbel noise is
    distributed as their softmax (Gumbel 1954; Maddison et al. 2014, "A* Sampling").
    """
    card, device = logits.shape[-1], logits.device
    asked = [sampler.parameters for sampler in samplers]
    settings = torch.tensor([[p.guidance_scale, p.temperature, p.top_p or _NO_NUCLEUS] for p in asked])
    # A nucleus rules where one is asked for; no count means all codes.
    counts = [card if p.top_p > 0 or p.top_k <= 0 else p.top_k for p in asked]
    numbers = torch.tensor(list(zip((p.seed for p in asked), (s.draws for s in samplers), counts, strict=True)))
    guidance, temperature, top_p = settings.to(device).T[..., None, None]  # each [B, 1, 1]
    seeds, draws, top_k = numbers.to(device).T[..., None, None]
    conditional, unconditional = logits.unbind(1)
    guided = unconditional + (conditional - unconditional) * guidance  # [B, K, card]
    ordered, codes = guided.sort(dim=-1, descending=True, stable=True)
    probabilities = (ordered / temperature.clamp_min(_SMALLEST_TEMPERATURE)).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    left_out = (torch.arange(card, device=device) >= top_k) | (before > top_p)
    noise = gumbel(seeds, draws, guided.shape[1], card).gather(-1, codes)
    scores = (ordered + temperature * noise).masked_fill_(left_out, float("-inf"))
    for sampler in samplers:
        sampler.draws += 1
    drawn: Tensor = codes.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1).cpu()
    return drawn


def gumbel(seeds: Tensor, draws: Tensor, codebooks: int, card: int) -> Tensor:
    """Noise for every code of every codebook. seeds, draws: int64 [B, 1, 1] → fp32 [B, codebooks, card]."""
    index = torch.arange(codebooks * card, device=seeds.device).view(1, codebooks, card)
    bits = _mix(_mix(_mix(seeds) + draws) + index)
    # 23 bits and a half fit into a float's 24, so that this is never 0 nor 1.
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def _mix(z: Tensor) -> Tensor:
    """One output of SplitMix64 (Steele et al. 2014), in int64, whose products wrap around."""
    z = z - 0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number.
    z = (z ^ (z >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return z ^ (z >> 31 & 0x1FFFFFFFF)
