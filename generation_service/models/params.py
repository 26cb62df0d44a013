"""What may be asked of a model."""

from __future__ import annotations

import math
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters, ModelInfo

MAX_PROMPT_CHARACTERS = 10_000
MIN_DURATION_SECONDS = 0.1
MAX_SEED = 2**63 - 1
ALLOWED_CONTROLS = "\t\n"
MAX_TEMPERATURE = 10.0
SAMPLING_RANGES = {"top_k": (0, 2048), "top_p": (0, 1), "guidance_scale": (0, 20)}


def parameters(
    info: ModelInfo, prompt: str, duration_seconds: float, seed: int | None, sampling: Mapping[str, float]
) -> GenerationParameters:
    """The request as a model takes it; a seed is drawn where there is none.

    `sampling` has any of temperature, top_k, top_p, guidance_scale; the others are the model's defaults.
    Raises InvalidArgument that names the field: prompt, duration_seconds, seed or e.g. sampling.top_k.
    """
    _check_prompt(prompt)
    longest = info.max_duration_seconds
    if not (math.isfinite(duration_seconds) and MIN_DURATION_SECONDS <= duration_seconds <= longest):
        raise InvalidArgument(
            "duration_seconds",
            f"must be {MIN_DURATION_SECONDS:g} to {longest:g} s for model {info.name!r}, not {duration_seconds:g}",
        )
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise InvalidArgument("seed", f"must be 0 to 2^63-1, not {seed}")
    _check_sampling(sampling)
    given: dict[str, Any] = dict(sampling)  # Its names are those of the parameters.
    return GenerationParameters(
        prompt=prompt,
        frames=round(duration_seconds * info.sample_rate_hz),
        seed=secrets.randbits(63) if seed is None else seed,
        **given,
    )


def _check_sampling(sampling: Mapping[str, float]) -> None:
    temperature = sampling.get("temperature", 1.0)
    if not 0 < temperature <= MAX_TEMPERATURE:  # Which NaN is not, either.
        raise InvalidArgument(
            "sampling.temperature", f"must be above 0 and at most {MAX_TEMPERATURE:g}, not {temperature:g}"
        )
    for name, (least, most) in SAMPLING_RANGES.items():
        value = sampling.get(name, least)
        if not least <= value <= most:
            raise InvalidArgument(f"sampling.{name}", f"must be {least} to {most}, not {value:g}")


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise InvalidArgument("prompt", "must not be blank; say what the music is to be")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidArgument("prompt", f"must have at most {MAX_PROMPT_CHARACTERS} characters, not {len(prompt)}")
    for position, character in enumerate(prompt):
        if unicodedata.category(character) == "Cc" and character not in ALLOWED_CONTROLS:
            raise InvalidArgument(
                "prompt", f"must have no control characters but tab and line feed; U+{ord(character):04X} at {position}"
            )
