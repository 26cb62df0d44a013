"""Which devices the engines run on: turns the setting `devices` into a device per engine, without importing torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceName, GenerationSettings
from generation_service.hardware.gpu_readings import Gpu, GpuReader, GpuReading
from generation_service.hardware.memory import default_batch_size, host_memory

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html"""
UNIFIED_GB_PER_SECOND = 273.0
"""The memory bandwidth of a GB10, which is assumed for GPUs that report neither bandwidth nor memory of their own."""
_MIG_PREFIX = "MIG-"
_TORCH_CUDA_PATTERN = re.compile(r"^cuda\b[^=]*=\s*['\"](?P<version>[^'\"]+)", re.MULTILINE)
"""The line of torch/version.py that names the CUDA version of a build with CUDA."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that an engine runs on."""

    name: str
    """ "cpu", or "cpu:0" if there are several engines on the CPU; for a GPU "cuda:0". GPUs are numbered as the variable
    CUDA_VISIBLE_DEVICES leaves them to this process."""
    uuid: str = ""
    """The UUID of the GPU or MIG instance; empty for the CPU."""
    gpu_name: str = ""
    """For example "NVIDIA H200"; empty for the CPU."""

    @property
    def kind(self) -> DeviceName:
        return "cuda" if self.uuid else "cpu"

    @property
    def model_name(self) -> str:
        """What to call it: the name of the GPU, else "cpu"."""
        return self.gpu_name or "cpu"


class Devices:
    """The devices of this machine."""

    def __init__(self, reader: GpuReader | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.reader = reader or GpuReader()
        self._environment = os.environ if environment is None else environment

    @cached_property
    def visible_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs and MIG instances that CUDA_VISIBLE_DEVICES leaves to this process, in its order.

        Its numbers are taken as those of NVML, which sorts by PCI address. As in CUDA, the first entry that does not
        exist hides all entries after it.
        """
        gpus = self.reader.gpus()
        chosen = self._environment.get(VISIBLE_DEVICES)
        if chosen is None:
            return gpus
        visible: list[Gpu] = []
        for entry in (entry.strip() for entry in chosen.split(",")):
            gpu = self._find(entry, gpus)
            if gpu is None:
                break
            visible.append(gpu)
        return tuple(visible)

    def _find(self, entry: str, gpus: tuple[Gpu, ...]) -> Gpu | None:
        if entry.isdecimal():
            return gpus[int(entry)] if int(entry) < len(gpus) else None
        if entry.startswith(_MIG_PREFIX):
            name = self.reader.name(entry)
            return Gpu(entry, name) if name else None
        return next((gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)), None)

    def resolve(self, choice: str, *, has_cuda_torch: bool | None = None) -> tuple[Device, ...]:
        """Returns the device of each engine for a value of the setting `devices`.

        `has_cuda_torch` says whether the installed torch can use a GPU; by default its files are looked at. Raises
        FailedPrecondition if a GPU that the setting names is not there, or `all` finds none.
        """
        if choice.startswith("cpu"):
            count = choice.count(",") + 1
            return tuple(Device("cpu" if count == 1 else f"cpu:{index}") for index in range(count))
        gpus = self.visible_gpus
        if choice == "auto":
            is_usable = torch_cuda_version() is not None if has_cuda_torch is None else has_cuda_torch
            return (_gpu_device(0, gpus[0]),) if gpus and is_usable else (Device("cpu"),)
        numbers = range(len(gpus)) if choice == "all" else [int(number) for number in choice.split(",")]
        if not numbers or max(numbers) >= len(gpus):
            raise FailedPrecondition(
                f"DGX_MUSIC_DEVICES is {choice}, but {self._describe_gpus()}; "
                + (f"use {' or '.join(_usable_choices(len(gpus)))}" if gpus else "set it to cpu, or to auto")
                + "; `dgx-music doctor` says more",
                reason="DEVICE_MISSING",
                metadata={"devices": choice},
            )
        return tuple(_gpu_device(number, gpus[number]) for number in numbers)

    def _describe_gpus(self) -> str:
        gpus = self.visible_gpus
        chosen = self._environment.get(VISIBLE_DEVICES)
        limit = "" if chosen is None else f" ({VISIBLE_DEVICES} is {chosen!r})"
        if gpus:
            return f"this machine's GPUs are numbered 0 to {len(gpus) - 1}{limit}"
        problem = self.reader.problem
        return f"no NVIDIA GPU is found{limit}" + (f": {problem}" if problem else "")

    def read(self, device: Device) -> GpuReading:
        """Returns the readings of the device. The memory of the CPU, and of a GPU that shares it, is the host's."""
        reading = self.reader.read(device.uuid) if device.uuid else GpuReading()
        if reading.memory_total_bytes is None and (host := host_memory()) is not None:
            return GpuReading(
                host.used_bytes,
                host.total_bytes,
                reading.temperature_celsius,
                reading.power_watts,
                reading.utilization_percent,
            )
        return reading

    def memory_gb_per_second(self, devices: Iterable[Device]) -> float:
        """Returns the memory bandwidth of the slowest of these GPUs in 10^9 bytes per second; 0 if it is not known.

        All engines run a model alike, so the slowest GPU decides how.
        """
        return min((self._gpu_bandwidth(device) for device in devices if device.uuid), default=0.0)

    def _gpu_bandwidth(self, device: Device) -> float:
        bandwidth = self.reader.memory_gb_per_second(device.uuid)
        if bandwidth is None and device.gpu_name and self.reader.read(device.uuid).memory_total_bytes is None:
            return UNIFIED_GB_PER_SECOND
        return bandwidth or 0.0

    def max_batch_size(self, device: Device, settings: GenerationSettings) -> int:
        """Returns the configured maximum batch size of an engine on the device, else the one that suits its memory."""
        if settings.max_batch_size is not None:
            return settings.max_batch_size
        return default_batch_size(None if device.kind == "cpu" else self.read(device).memory_total_bytes or 0)


def torch_cuda_version() -> str | None:
    """Returns the CUDA version that the installed torch is built for; None without torch or for a build without CUDA.

    Reads a file of torch: importing it takes seconds.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    match = _TORCH_CUDA_PATTERN.search(text)
    return match and match["version"]


def _gpu_device(number: int, gpu: Gpu) -> Device:
    return Device(f"cuda:{number}", gpu.uuid, gpu.name)


def _usable_choices(gpus: int) -> list[str]:
    return ["auto", "all", "0" if gpus == 1 else f"numbers from 0 to {gpus - 1}"]
