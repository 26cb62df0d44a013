"""How tokens are to be drawn: what was asked for, name by name; what is absent is the model's default."""

from __future__ import annotations

from collections.abc import Mapping

from dgx_music.errors import InvalidArgument
from storage_service.domain.request_validation import check_range

Sampling = Mapping[str, float]

HIGHEST_TEMPERATURE = 10.0
RANGES = {"top_k": (0, 2048), "top_p": (0, 1), "guidance_scale": (0, 20)}


def check_sampling(field: str, sampling: Sampling) -> None:
    """Temperature above 0 up to 10, top_k 0 to 2048, top_p 0 to 1, guidance_scale 0 to 20; NaN is none of these."""
    for name, value in sampling.items():
        path = f"{field}.{name}"
        if name in RANGES:
            check_range(path, value, *RANGES[name])
        elif not 0 < value <= HIGHEST_TEMPERATURE:
            raise InvalidArgument(path, f"must be above 0 and at most {HIGHEST_TEMPERATURE:g}, not {value:g}")
