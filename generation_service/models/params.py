"""Checks a request and turns it into the parameters that a model takes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MIN_DURATION_SECONDS
from generation_service.models.base import GenerationParameters, ModelInfo
from service_runtime.validation import check_prompt, check_sampling, check_seed


def parameters(
    info: ModelInfo, prompt: str, duration_seconds: float, seed: int | None, sampling: Mapping[str, float]
) -> GenerationParameters:
    """The request as a model takes it; where there is no seed, a random one.

    `sampling` has any of temperature, top_k, top_p, guidance_scale; the others are the model's defaults.
    Raises InvalidArgument that names the field: prompt, duration_seconds, seed or e.g. sampling.top_k.
    """
    check_prompt("prompt", prompt)
    longest = info.max_duration_seconds
    if not (math.isfinite(duration_seconds) and MIN_DURATION_SECONDS <= duration_seconds <= longest):
        raise InvalidArgument(
            "duration_seconds",
            f"must be {MIN_DURATION_SECONDS:g} to {longest:g} s for model {info.name!r}, not {duration_seconds:g}",
        )
    if seed is not None:
        check_seed("seed", seed)
    check_sampling("sampling", sampling)
    given: dict[str, Any] = dict(sampling)  # Its names are those of the parameters.
    return GenerationParameters(
        prompt=prompt,
        frames=round(duration_seconds * info.sample_rate_hz),
        seed=secrets.randbits(63) if seed is None else seed,
        **given,
    )
