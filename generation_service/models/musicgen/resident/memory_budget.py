"""How much of a GPU's memory the KV caches get."""

from __future__ import annotations

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.models.device import empty_device_cache, gpu_memory
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditions import MAX_BRANCHES
from generation_service.models.musicgen.resident.page_pool import count_pages, page_bytes

USUAL_PROMPT_TOKENS = 64
"""The length of prompt that every request of a full batch can have."""
WORKING_BYTES = 2 << 30
"""Memory left for the codec, 0.45 GB per channel, for the encoded prompts, 0.25 GB, and for graphs and libraries."""


class GpuBudget:
    """The share of a GPU's memory that a model may use. Made before the model is loaded."""

    def __init__(self, fraction: float) -> None:
        """`fraction` is the share of the memory that is free now."""
        self._kept_free_bytes = round(_free_bytes() * (1 - fraction))

    def available_bytes(self) -> int:
        """What is left for KV caches, once the weights are loaded."""
        return max(0, _free_bytes() - self._kept_free_bytes - WORKING_BYTES)


def budget_pages(
    config: LmConfig, dtype: torch.dtype, *, positions: int, max_batch_size: int, available_bytes: int | None
) -> int:
    """The number of pages to allocate: what a batch of the longest requests needs, and one of them with all branches
    that there can be, or else as many as are available.

    `positions` is what the longest request needs. Raises FailedPrecondition if not even one such request fits.
    """
    size = page_bytes(config, dtype)
    for_one = count_pages(Reservation(positions, USUAL_PROMPT_TOKENS))
    with_branches = Reservation(positions, USUAL_PROMPT_TOKENS, MAX_BRANCHES, has_negative=True)
    pages = max(max_batch_size * for_one, count_pages(with_branches))
    if available_bytes is not None:
        pages = min(pages, available_bytes // size)
    if pages < for_one:
        raise FailedPrecondition(
            f"the KV cache of one request needs {for_one * size >> 20} MiB, but only "
            f"{(available_bytes or 0) >> 20} MiB are left for it; stop other programs that use the "
            "GPU, use a smaller model, or set DGX_MUSIC_DEVICES to cpu",
            reason="GPU_MEMORY",
        )
    return pages


def _free_bytes() -> int:
    empty_device_cache()  # Memory that torch has cached from an earlier model is free, too.
    return gpu_memory().free_bytes
