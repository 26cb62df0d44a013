"""From logits to codes. Every request draws from a generator of its own, so its draws are the same in any company."""

from __future__ import annotations

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters


class Sampler:
    """Draws one request's codes."""

    def __init__(self, parameters: GenerationParameters) -> None:
        """A temperature of 0 takes the likeliest code and draws nothing."""
        self.parameters = parameters
        self.draws = 0
        """Made on a device, which numbers them instead of keeping a generator's state."""
        self._generator = torch.Generator().manual_seed(parameters.seed)

    def draw(self, logits: Tensor) -> Tensor:
        """logits: [2, K, card], with the prompt and without it → codes: int64 [K].

        Classifier-free guidance (Ho & Salimans 2022) goes from the second towards the first and beyond.
        """
        conditional, unconditional = logits.unbind(0)
        guided = unconditional + (conditional - unconditional) * self.parameters.guidance_scale  # [K, card]
        if self.parameters.temperature <= 0:
            return guided.argmax(-1)
        scaled = guided / self.parameters.temperature
        if self.parameters.top_p > 0:
            return self._nucleus(scaled)
        if 0 < self.parameters.top_k < scaled.shape[-1]:
            values, codes = scaled.topk(self.parameters.top_k)
            return codes.gather(-1, self._choose(values.softmax(-1))).squeeze(-1)
        return self._choose(scaled.softmax(-1)).squeeze(-1)

    def _nucleus(self, scaled: Tensor) -> Tensor:
        """The likeliest codes until their probabilities exceed `top_p` (Holtzman et al. 2019)."""
        probabilities, codes = scaled.softmax(-1).sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = probabilities.masked_fill(before > self.parameters.top_p, 0)
        return codes.gather(-1, self._choose(kept)).squeeze(-1)

    def _choose(self, weights: Tensor) -> Tensor:
        """weights: [K, n], not all 0 in a row → index: [K, 1]."""
        return torch.multinomial(weights, 1, generator=self._generator)
