"""Requests to sample codes for, and the distribution that the codes must have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.sampling import SamplingTensors


def request(seed: int = 7, **sampling: float) -> GenerationParameters:
    return GenerationParameters("", 1, seed, **sampling)  # type: ignore[arg-type]


def parameters_of(requests: Sequence[GenerationParameters], card: int) -> SamplingTensors:
    return SamplingTensors.from_parameters(requests, card)


def assert_distributed(codes: Tensor, logits: Sequence[float], temperature: float, top_k: int, top_p: float) -> None:
    """Compares the counts of codes with their probabilities, which are calculated here one code after another."""
    probabilities = np.exp(np.array(logits) / temperature)
    order = np.argsort(-probabilities, kind="stable")
    probabilities[order[top_k or len(order) :]] = 0
    probabilities /= probabilities.sum()
    before = 0.0
    kept = np.zeros_like(probabilities)
    for code in order:
        if before <= (top_p or 1.0):
            kept[code] = probabilities[code]
        before += probabilities[code]
    kept /= kept.sum()
    counts = np.bincount(codes.numpy(), minlength=len(kept))
    assert counts[kept == 0].sum() == 0
    expected = kept * len(codes)
    assert expected[kept > 0].min() > 5, "too few samples for the test"
    if (kept > 0).sum() > 1:
        assert scipy.stats.chisquare(counts[kept > 0], expected[kept > 0]).pvalue > 0.01
