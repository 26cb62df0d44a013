"""Whether a model's weights fit into the memory, computed from the headers of its files."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dgx_music.errors import FailedPrecondition
from generation_service.config import PrecisionName
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, TensorHeader

_WEIGHT_BYTES: dict[PrecisionName, int] = {"fp32": 4, "bf16": 2, "int8": 1, "fp8": 1}
_FP32_BYTES = 4
"""The text encoder and the codec compute in fp32 everywhere."""


def weight_bytes(checkpoint: Checkpoint, precision: PrecisionName) -> int:
    """What the weights of the language model, the text encoder and the codec take, once they are loaded."""
    others = (checkpoint.open_text_encoder(), checkpoint.open_codec())
    lm = _WEIGHT_BYTES[precision] * _parameters(checkpoint.headers)
    return lm + _FP32_BYTES * sum(_parameters(stored.headers) for stored in others)


def require_memory(checkpoint: Checkpoint, precision: PrecisionName, free_bytes: int, device: str) -> None:
    """Raises FailedPrecondition if the weights alone need more than what is free on the device."""
    needed = weight_bytes(checkpoint, precision)
    if needed > free_bytes:
        raise FailedPrecondition(
            f"{checkpoint.path}: the weights take {needed / 1e9:.1f} GB in {precision}, but {device} has only "
            f"{free_bytes / 1e9:.1f} GB free; stop other programs, use a smaller model, or set DGX_MUSIC_PRECISION to "
            "int8",
            reason="MODEL_TOO_LARGE",
            metadata={"file": str(checkpoint.path), "needed_bytes": str(needed), "free_bytes": str(free_bytes)},
        )


def _parameters(headers: Mapping[str, TensorHeader]) -> int:
    return sum(math.prod(header.shape) for header in headers.values())
