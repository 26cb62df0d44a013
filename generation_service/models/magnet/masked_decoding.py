"""MAGNeT's iterations: one codebook after the other is masked and predicted, at first all of it, then ever less.

Source: audiocraft 1.3.0, `MagnetLMModel._generate_stage` in models/lm_magnet.py (Ziv et al. 2024, sections 3.1 and 3.2)
with `span_arrangement="nonoverlap"` and `span_scoring="max"`, its defaults. An iteration masks the spans that were
least probable when they were sampled last, and samples all their codes again. The rest of the codebook stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.magnet.masked_transformer import MaskedTransformer
from generation_service.models.musicgen.delay_pattern import Codes
from generation_service.models.musicgen.sampling import TOP_P_DISABLED, SamplingTensors, sample

MIN_TEMPERATURE = 1e-2
"""audiocraft's, at the last iteration of a codebook."""
_KEPT = -1e4
"""The score of a span that is not masked again. Those of the others are from 0 to 1."""


@dataclass(slots=True, eq=False)
class MaskedCodes:
    """The codes of one request while they are generated."""

    parameters: GenerationParameters
    text: Tensor | None
    """The encoded prompt, [tokens, dim]."""
    negative: Tensor | None
    """The encoded text to guide away from."""
    codes: Tensor
    """int64 [K, T]; `card` stands for a masked code, and T is a whole number of spans."""
    prompt: Tensor
    """int64 [K, n]: the first codes, which are given."""
    scores: Tensor
    """fp32 [spans]: how improbable each span is."""
    stage: int = 0
    """The codebook that is being generated."""
    iteration: int = 0
    """Of this codebook."""
    steps: int = 0
    """Iterations done in all."""
    is_finite: bool = True
    """Whether all logits so far were finite numbers."""

    @property
    def is_done(self) -> bool:
        return self.stage == len(self.codes)

    @property
    def frames(self) -> int:
        """T."""
        return self.codes.shape[1]


class MaskedDecoder:
    """Generates the codes of requests, each by itself: the frames of one are enough rows to keep a device busy. So what
    a request becomes can't depend on the others."""

    def __init__(self, transformer: MaskedTransformer) -> None:
        self.config = transformer.config
        self._transformer = transformer

    def begin(
        self,
        parameters: GenerationParameters,
        text: Tensor | None,
        negative: Tensor | None,
        frames: int,
        prompt: Codes | None = None,
    ) -> MaskedCodes:
        """Masks all codes but those of the prompt. text, negative: as in `MaskedCodes`. frames: the least T, rounded up
        to whole spans. prompt: [K, n]."""
        config, device = self.config, self._transformer.device
        spans = -(-frames // config.span_len)
        codes = torch.full((config.lm.n_q, spans * config.span_len), config.lm.card, device=device)
        given = torch.from_numpy(np.zeros((config.lm.n_q, 0), np.int64) if prompt is None else prompt).to(device)
        codes[:, : given.shape[1]] = given
        return MaskedCodes(parameters, text, negative, codes, given, self._first_scores(spans, given))

    @torch.inference_mode()
    def advance(self, codes: MaskedCodes) -> None:
        """Runs the next iteration. Its codes have no meaning once logits were not finite."""
        config, stage = self.config, codes.stage
        iterations = config.decoding_steps[stage]
        share = _masked_share(codes.iteration, iterations)
        row = codes.codes[stage]  # [T]
        spans, prompt_frames = len(codes.scores), codes.prompt.shape[1]
        to_generate = spans - prompt_frames // config.span_len
        count = max(int((share * to_generate).item()), 1)
        is_masked = torch.zeros(spans, dtype=torch.bool, device=row.device)
        # Of equally improbable spans, the first.
        is_masked[codes.scores.argsort(descending=True, stable=True)[:count]] = True
        row[is_masked.repeat_interleave(config.span_len)] = config.lm.card
        row[:prompt_frames] = codes.prompt[stage]
        logits = self._transformer.predict(codes.codes, codes.text, codes.negative, stage)
        sampled, probabilities = self._sample(
            codes, logits, float(share), (iterations - 1 - codes.iteration) / iterations
        )
        torch.where(row == config.lm.card, sampled, row, out=row)
        probable = probabilities.view(spans, config.span_len).amax(1)
        codes.scores = (1 - probable).masked_fill_(~is_masked, _KEPT)
        codes.is_finite = bool(logits.isfinite().all())
        codes.steps += 1
        codes.iteration += 1
        if codes.iteration == iterations:
            codes.stage, codes.iteration = stage + 1, 0
            codes.scores = self._first_scores(spans, codes.prompt)

    def _first_scores(self, spans: int, prompt: Tensor) -> Tensor:
        scores = torch.zeros(spans, device=prompt.device)
        scores[: prompt.shape[1] // self.config.span_len] = _KEPT
        return scores

    def _sample(self, codes: MaskedCodes, logits: Tensor, share: float, warmth: float) -> tuple[Tensor, Tensor]:
        """A code for each frame, and its probability: int64 [T], fp32 [T]. logits: [2, T, card].

        Guidance falls with the share that is masked, the temperature with `warmth`. A temperature of 0 samples the most
        probable codes; the probabilities are then those at the model's own temperature.
        """
        config, parameters = self.config, codes.parameters
        guidance = share * parameters.guidance_scale + (1 - share) * config.min_guidance
        temperature = max((parameters.temperature or config.temperature) * warmth, MIN_TEMPERATURE)
        frames, card, device = logits.shape[1], config.lm.card, logits.device
        conditional, negative = logits
        tensors = SamplingTensors(
            guidance_scale=torch.tensor([guidance], device=device),
            temperature=torch.tensor([temperature if parameters.temperature else 0.0], device=device),
            top_k=torch.tensor([min(parameters.top_k or card, card)], device=device),
            top_p=torch.tensor([parameters.top_p or TOP_P_DISABLED], device=device),
            seed=torch.tensor([parameters.seed], device=device),
        )
        sampled = sample(
            logits.transpose(0, 1)[:, :, None],  # [T, 2, 1, card]: each frame is a request of its own.
            tensors,
            codes.steps * frames + torch.arange(frames, device=device),
            max_top_k=parameters.top_k or card,
            uses_top_p=bool(parameters.top_p),
        )
        guided = negative + (conditional - negative) * guidance
        probabilities = torch.softmax(guided / temperature, -1).gather(1, sampled)[:, 0]
        return sampled[:, 0], probabilities


def _masked_share(iteration: int, iterations: int) -> Tensor:
    """The share of the spans that an iteration masks, 1 to 0: a cosine. fp32, rounded as in audiocraft."""
    return torch.cos(torch.linspace(0, 1, iterations)[iteration] * math.pi * 0.5)
