"""Sampling on the CPU: temperature, top-k, top-p and classifier-free guidance."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.sampling import Sampler  # noqa: E402


def parameters(**changes: float) -> GenerationParameters:
    return GenerationParameters("", 1, 7, **changes)  # type: ignore[arg-type]


def samples(logits: Tensor, count: int = 300, **changes: float) -> set[int]:
    sampler = Sampler(parameters(**changes))
    return {int(sampler.sample(logits)[0]) for _ in range(count)}


def test_samples_respect_top_k_and_top_p() -> None:
    logits = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1])).expand(2, 1, 4)
    assert samples(logits, temperature=0) == {0}
    assert samples(logits, top_k=1) == {0}
    assert samples(logits, top_k=2) == {0, 1}
    assert samples(logits, top_k=0) == {0, 1, 2, 3}
    assert samples(logits, top_p=0.65) == {0, 1}
    assert samples(logits, top_p=0.95, top_k=1) == {0, 1, 2, 3}, "top-p takes precedence"


def test_guidance_scale_extrapolates_from_unconditional_to_conditional() -> None:
    logits = torch.tensor([[[0.0, 1.0, 0.9]], [[2.0, 1.5, 0.5]]])  # conditional, unconditional
    expected = {0.0: 0, 1.0: 1, 10.0: 2}
    assert {scale: samples(logits, 1, temperature=0, guidance_scale=scale) for scale in expected} == {
        scale: {code} for scale, code in expected.items()
    }
