"""Validates a request and converts it to the parameters of a model."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MIN_DURATION_SECONDS
from generation_service.models.base import GenerationParameters, ModelInfo
from service_runtime.validation import check_prompt, check_sampling, check_seed


def build_parameters(
    info: ModelInfo, prompt: str, duration_seconds: float, seed: int | None, sampling: Mapping[str, float]
) -> GenerationParameters:
    """Returns the validated parameters. Without a seed, a random one is drawn.

    `sampling` may contain temperature, top_k, top_p and guidance_scale; missing ones keep the model's defaults, but
    a top_p without a top_k applies to all codes.
    Raises InvalidArgument, which names the field: prompt, duration_seconds, seed or, for example, sampling.top_k.
    """
    check_prompt("prompt", prompt)
    max_seconds = info.max_duration_seconds
    if not (math.isfinite(duration_seconds) and MIN_DURATION_SECONDS <= duration_seconds <= max_seconds):
        raise InvalidArgument(
            "duration_seconds",
            f"must be {MIN_DURATION_SECONDS:g} to {max_seconds:g} s for model {info.name!r}, not {duration_seconds:g}",
        )
    if seed is not None:
        check_seed("seed", seed)
    check_sampling("sampling", sampling)
    defaults: dict[str, Any] = {
        "guidance_scale": info.default_guidance_scale,
        "temperature": info.default_temperature,
        "top_k": 0 if sampling.get("top_p") else info.default_top_k,
        "top_p": info.default_top_p,
    }
    return GenerationParameters(
        prompt=prompt,
        frames=round(duration_seconds * info.sample_rate_hz),
        seed=secrets.randbits(63) if seed is None else seed,
        **{**defaults, **sampling},  # The names are those of GenerationParameters.
    )
