"""The precision `auto` of the weights on a GPU."""

from __future__ import annotations

from generation_service.config import PrecisionName
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.linear_selection import layer_shapes

MAX_STEP_SECONDS = 0.010
"""A step makes one frame, and music has 50 a second: a model that takes longer can't reach twice real time."""
_BF16_BYTES = 2


def choose_precision(config: LmConfig, memory_gb_per_second: float) -> tuple[PrecisionName, str]:
    """bf16, unless reading the weights takes too much of a step; then int8, which is less exact. And why.

    It depends on the model and the GPU's data sheet alone, not on a measurement: the precision is part of the model's
    version, and a seed has to make the same music after each start. memory_gb_per_second: 10^9 bytes per second, or 0
    if the GPU does not say. fp8 is never chosen: it reads as many bytes as int8, and is less exact.
    """
    weights = sum(shape.per_step * shape.outputs * shape.inputs for shape in layer_shapes(config))
    gigabytes = _BF16_BYTES * weights / 1e9
    if not memory_gb_per_second:
        return "bf16", f"bf16: a step reads {gigabytes:.2f} GB; the GPU does not report its memory bandwidth"
    seconds = gigabytes / memory_gb_per_second
    precision: PrecisionName = "int8" if seconds > MAX_STEP_SECONDS else "bf16"
    return precision, (
        f"{precision}: in bf16 a step would read {gigabytes:.2f} GB, which takes {seconds * 1e3:.1f} ms at "
        f"{memory_gb_per_second:.0f} GB/s; int8 is used above {MAX_STEP_SECONDS * 1e3:.0f} ms"
    )
