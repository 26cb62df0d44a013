"""`NvmlLibrary`: has the functions of the module `pynvml`, for GPUs that a test describes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

GIB = 2**30


class NotSupported(Exception):
    """What NVML raises for a value that a GPU does not have."""

    def __str__(self) -> str:
        return "Not Supported"


@dataclass
class NvmlGpu:
    """A GPU. A value that is None raises "Not Supported"."""

    uuid: str
    name: str = "NVIDIA H200"
    memory: tuple[int, int] | None = (40 * GIB, 139 * GIB)
    """Used and total, in bytes."""
    temperature: int | None = 61
    milliwatts: int | None = 432_100
    utilization: int | None = 97
    bus_bits: int | None = 6144
    memory_megahertz: int | None = 3201


class NvmlLibrary:
    """A driver with these GPUs, in PCI order."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_MEM = 2

    def __init__(self, *gpus: NvmlGpu, mig_instances: tuple[NvmlGpu, ...] = (), init_error: str = "") -> None:
        self.gpus = gpus
        self._by_uuid = {gpu.uuid: gpu for gpu in (*gpus, *mig_instances)}
        self._init_error = init_error

    def nvmlInit(self) -> None:
        if self._init_error:
            raise RuntimeError(self._init_error)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> NvmlGpu:
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> NvmlGpu:
        return self._by_uuid[uuid]

    def nvmlDeviceGetUUID(self, gpu: NvmlGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: NvmlGpu) -> bytes:
        return gpu.name.encode()  # As older versions of pynvml return it.

    def nvmlDeviceGetMemoryInfo(self, gpu: NvmlGpu) -> Any:
        used, total = _supported(gpu.memory)
        return SimpleNamespace(used=used, total=total)

    def nvmlDeviceGetTemperature(self, gpu: NvmlGpu, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return int(_supported(gpu.temperature))

    def nvmlDeviceGetPowerUsage(self, gpu: NvmlGpu) -> int:
        return int(_supported(gpu.milliwatts))

    def nvmlDeviceGetUtilizationRates(self, gpu: NvmlGpu) -> Any:
        return SimpleNamespace(gpu=_supported(gpu.utilization))

    def nvmlDeviceGetMemoryBusWidth(self, gpu: NvmlGpu) -> int:
        return int(_supported(gpu.bus_bits))

    def nvmlDeviceGetMaxClockInfo(self, gpu: NvmlGpu, clock: int) -> int:
        assert clock == self.NVML_CLOCK_MEM
        return int(_supported(gpu.memory_megahertz))


def _supported(value: Any) -> Any:
    if value is None:
        raise NotSupported
    return value
