"""Which device models run on. torch is asked only where it is loaded already, or a model needs it anyway."""

from __future__ import annotations

import sys

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice, PrecisionName

PRECISIONS: dict[DeviceName, tuple[PrecisionName, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("bf16", "fp32")}
"""What each device can do; the first is what "auto" takes."""


def choose(device: DeviceChoice, precision: PrecisionChoice) -> tuple[DeviceName, PrecisionName]:
    """The device and the precision that are meant. Imports torch.

    Raises FailedPrecondition where this machine, or that device, has no such thing.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise FailedPrecondition(
            f"DGX_MUSIC_DEVICE is cuda, but torch {torch.__version__} (built for {build}) finds no GPU; "
            "dgx-music doctor says more",
            reason="CUDA_MISSING",
        )
    name: DeviceName = "cuda" if has_cuda and device != "cpu" else "cpu"
    if precision == "auto":
        return name, PRECISIONS[name][0]
    if precision not in PRECISIONS[name]:
        raise FailedPrecondition(
            f"DGX_MUSIC_PRECISION is {precision}; on {name} it can be {' or '.join(PRECISIONS[name])}",
            reason="PRECISION_UNSUPPORTED",
        )
    return name, precision


def device_in_use() -> str:
    """The GPU's name once this process uses one, else "cpu"."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    return str(torch.cuda.get_device_name())


def give_back_memory() -> None:
    """Gives what was freed of the GPU's memory, and torch keeps for later, to whoever wants it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
