"""The device that the models of this process run on, as torch sees it. torch is consulted only if it is loaded already
or a model needs it anyway."""

from __future__ import annotations

import sys
from typing import Any

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice, PrecisionName
from generation_service.hardware.memory import DeviceMemory, cuda_memory

SUPPORTED_PRECISIONS: dict[DeviceName, tuple[PrecisionName, ...]] = {
    "cpu": ("fp32", "int8"),
    "cuda": ("bf16", "fp32", "int8", "fp8"),
}
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
            f"DGX_MUSIC_DEVICES asks for a GPU, but torch {torch.__version__} (built for {build}) finds none; "
            "set it to cpu, or run `dgx-music doctor` for details",
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


def forbid_tf32() -> None:
    """Has torch multiply fp32 as fp32 on a GPU. By default cuDNN uses TF32, with a significand of 10 bits: too little
    for a codec. Imports torch."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def gpu_memory() -> DeviceMemory:
    """Returns the memory of the GPU that this process uses, as it is now. Imports torch; raises RuntimeError without a
    GPU. Memory that torch's allocator caches counts as used: call `empty_device_cache` first."""
    import torch

    is_integrated = bool(torch.cuda.get_device_properties(torch.cuda.current_device()).is_integrated)
    return cuda_memory(*torch.cuda.mem_get_info(), is_integrated=is_integrated)


def empty_device_cache() -> None:
    """Returns the GPU memory that torch's allocator caches to the system. Does nothing on the CPU."""
    cuda = _cuda_in_use()
    if cuda is not None:
        cuda.empty_cache()


def _cuda_in_use() -> Any:
    """Returns `torch.cuda` if this process uses a GPU. Imports nothing; another thread may be importing torch."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(cuda, "is_initialized", None)
    return cuda if is_initialized is not None and is_initialized() else None
