"""Samples codes for a whole batch on the device that holds the logits, with one transfer and one wait per step.

The random numbers are a hash of a request's seed, its number of samples so far, and the code's index. They depend
neither on the other requests nor on a generator's state. They differ from those of the CPU's generator: a seed
reproduces its music only on the same kind of device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generation_service.models.musicgen.sampling import Sampler

_MIN_TEMPERATURE = 1e-6
_TOP_P_DISABLED = 2.0
"""Larger than any sum of probabilities, whatever its rounding error."""


def sample_batch(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """Samples in the way that suits the logits' device. logits: [B, 2, K, card] → codes: int64 [B, K], on the CPU."""
    if logits.device.type == "cpu":
        return torch.stack([sampler.sample(own) for sampler, own in zip(samplers, logits, strict=True)])
    return sample_batch_on_device(logits, samplers)


def sample_batch_on_device(logits: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """logits: fp32 [B, 2, K, card], conditional and unconditional → codes: int64 [B, K], on the CPU.

    Draws from the same distribution as `Sampler.sample`, by the Gumbel-max trick: the argmax of logits / temperature +
    Gumbel noise is distributed as their softmax (Gumbel 1954; Maddison et al. 2014, "A* Sampling").
    """
    card, device = logits.shape[-1], logits.device
    parameters = [sampler.parameters for sampler in samplers]
    settings = torch.tensor([[p.guidance_scale, p.temperature, p.top_p or _TOP_P_DISABLED] for p in parameters])
    # Top-p takes precedence over top-k; a top-k of 0 means all codes.
    limits = [card if p.top_p > 0 or p.top_k <= 0 else p.top_k for p in parameters]
    seeds = (p.seed for p in parameters)
    integers = torch.tensor(list(zip(seeds, (s.sample_count for s in samplers), limits, strict=True)))
    guidance, temperature, top_p = settings.to(device).T[..., None, None]  # each [B, 1, 1]
    seed, sample_count, top_k = integers.to(device).T[..., None, None]
    conditional, unconditional = logits.unbind(1)
    guided = unconditional + (conditional - unconditional) * guidance  # [B, K, card]
    ordered, codes = guided.sort(dim=-1, descending=True, stable=True)
    probabilities = (ordered / temperature.clamp_min(_MIN_TEMPERATURE)).softmax(-1)
    preceding = probabilities.cumsum(-1) - probabilities
    excluded = (torch.arange(card, device=device) >= top_k) | (preceding > top_p)
    noise = gumbel_noise(seed, sample_count, guided.shape[1], card).gather(-1, codes)
    scores = (ordered + temperature * noise).masked_fill_(excluded, float("-inf"))
    for sampler in samplers:
        sampler.sample_count += 1
    sampled: Tensor = codes.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1).cpu()
    return sampled


def gumbel_noise(seeds: Tensor, sample_counts: Tensor, codebooks: int, card: int) -> Tensor:
    """Noise for every code of every codebook. seeds, sample_counts: int64 [B, 1, 1] → fp32 [B, codebooks, card]."""
    index = torch.arange(codebooks * card, device=seeds.device).view(1, codebooks, card)
    bits = _splitmix64(_splitmix64(_splitmix64(seeds) + sample_counts) + index)
    # 23 random bits plus one half fit into the 24 bits of a float's significand, so the result is never 0 nor 1.
    uniform = ((bits >> 41 & 0x7FFFFF).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def _splitmix64(z: Tensor) -> Tensor:
    """One output of SplitMix64 (Steele et al. 2014), in int64, whose products wrap around."""
    z = z - 0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number.
    z = (z ^ (z >> 30 & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27 & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return z ^ (z >> 31 & 0x1FFFFFFFF)
