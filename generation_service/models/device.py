"""Chooses the device that models run on. torch is consulted only if it is loaded already or a model needs it anyway."""

from __future__ import annotations

import sys

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice, PrecisionName

SUPPORTED_PRECISIONS: dict[DeviceName, tuple[PrecisionName, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("bf16", "fp32")}
"""The precisions of each device; the first is its default."""


def resolve_device(device: DeviceChoice, precision: PrecisionChoice) -> tuple[DeviceName, PrecisionName]:
    """Replaces "auto" with the device and the precision to use. Imports torch.

    Raises FailedPrecondition if this machine lacks the device, or the device does not support the precision.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
        raise FailedPrecondition(
            f"DGX_MUSIC_DEVICE is cuda, but torch {torch.__version__} (built for {build}) finds no GPU; "
            "run `dgx-music doctor` for details",
            reason="CUDA_MISSING",
        )
    name: DeviceName = "cuda" if has_cuda and device != "cpu" else "cpu"
    if precision == "auto":
        return name, SUPPORTED_PRECISIONS[name][0]
    if precision not in SUPPORTED_PRECISIONS[name]:
        raise FailedPrecondition(
            f"DGX_MUSIC_PRECISION is {precision}, which {name} does not support; "
            f"use {' or '.join(SUPPORTED_PRECISIONS[name])}",
            reason="PRECISION_UNSUPPORTED",
        )
    return name, precision


def device_in_use() -> str:
    """Returns the name of the GPU if this process uses one, else "cpu"."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    return str(torch.cuda.get_device_name())


def empty_device_cache() -> None:
    """Returns the GPU memory that torch's allocator caches to the system. Does nothing on the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
