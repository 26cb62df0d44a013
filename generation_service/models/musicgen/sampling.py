"""Samples codes from logits. Every request has its own generator, so its codes do not depend on the other requests."""

from __future__ import annotations

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters


class Sampler:
    """Samples the codes of one request."""

    def __init__(self, parameters: GenerationParameters) -> None:
        """A temperature of 0 selects the most likely code (greedy decoding) and uses no random numbers."""
        self.parameters = parameters
        self.sample_count = 0
        """Samples drawn on an accelerator, where a counter takes the place of the generator's state."""
        self._generator = torch.Generator().manual_seed(parameters.seed)

    def sample(self, logits: Tensor) -> Tensor:
        """logits: [2, K, card], conditional and unconditional → codes: int64 [K].

        Classifier-free guidance (Ho & Salimans 2022) extrapolates from the unconditional to the conditional logits.
        """
        conditional, unconditional = logits.unbind(0)
        guided = unconditional + (conditional - unconditional) * self.parameters.guidance_scale  # [K, card]
        if self.parameters.temperature <= 0:
            return guided.argmax(-1)
        scaled = guided / self.parameters.temperature
        if self.parameters.top_p > 0:
            return self._sample_top_p(scaled)
        if 0 < self.parameters.top_k < scaled.shape[-1]:
            values, codes = scaled.topk(self.parameters.top_k)
            return codes.gather(-1, self._sample_index(values.softmax(-1))).squeeze(-1)
        return self._sample_index(scaled.softmax(-1)).squeeze(-1)

    def _sample_top_p(self, scaled: Tensor) -> Tensor:
        """Nucleus sampling from the most likely codes until their probability exceeds top-p (Holtzman et al. 2019)."""
        probabilities, codes = scaled.softmax(-1).sort(descending=True)
        preceding = probabilities.cumsum(-1) - probabilities
        nucleus = probabilities.masked_fill(preceding > self.parameters.top_p, 0)
        return codes.gather(-1, self._sample_index(nucleus)).squeeze(-1)

    def _sample_index(self, weights: Tensor) -> Tensor:
        """weights: [K, n], not all 0 in any row → index: [K, 1]."""
        return torch.multinomial(weights, 1, generator=self._generator)
