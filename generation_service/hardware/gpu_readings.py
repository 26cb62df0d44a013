"""Reads GPUs through NVML, NVIDIA's management library, which needs the driver but neither CUDA nor torch.

Nothing here raises: a value that a GPU does not report is None. GB10, for example, reports no memory of its own, and a
MIG instance no power. https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

MAX_GPUS = 64
"""Protects from a library that reports nonsense."""
MILLIWATTS_PER_WATT = 1000.0
_BITS_PER_BYTE, _MHZ_PER_GHZ = 8, 1000
_TRANSFERS_PER_CLOCK = 2
"""Memory transfers data at both edges of its clock (DDR)."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU of this machine."""

    uuid: str
    """For example "GPU-3e9b…"; CUDA_VISIBLE_DEVICES accepts it."""
    name: str
    """For example "NVIDIA H200"."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What a GPU reports at one moment; None where it reports nothing."""

    memory_used_bytes: int | None = None
    """Memory in use by all processes."""
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_percent: float | None = None
    """Share of the last sample period, up to a second, in which a kernel was running."""


class GpuReader:
    """Lists and reads GPUs. May be called from any thread; a call takes milliseconds, so not on the event loop."""

    def __init__(self, library: Any = None) -> None:
        """`library` has the functions of the module `pynvml`, which is imported at the first call by default."""
        self._library = library
        self._handles: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._is_initialized = False
        self.problem = ""
        """Why no GPU can be read; empty before the first call and if NVML works."""

    def gpus(self) -> tuple[Gpu, ...]:
        """Returns the GPUs of this machine, in the order of their PCI addresses. Empty without NVIDIA's driver."""
        library = self._initialize()
        if library is None:
            return ()
        count = min(_value(library.nvmlDeviceGetCount) or 0, MAX_GPUS)
        handles = [_value(library.nvmlDeviceGetHandleByIndex, index) for index in range(count)]
        return tuple(
            Gpu(_text(_value(library.nvmlDeviceGetUUID, handle)), _text(_value(library.nvmlDeviceGetName, handle)))
            for handle in handles
            if handle is not None
        )

    def name(self, uuid: str) -> str:
        """Returns the name of a GPU or MIG instance; empty if there is none with this UUID."""
        library, handle = self._handle(uuid)
        return "" if handle is None else _text(_value(library.nvmlDeviceGetName, handle))

    def memory_gb_per_second(self, uuid: str) -> float | None:
        """Returns the memory bandwidth of the GPU with this UUID as its data sheet has it, in 10^9 bytes per second.
        For example, an H200 has 6144 bits at 3.2 GHz: 4917."""
        library, handle = self._handle(uuid)
        if handle is None:
            return None
        bits = _value(library.nvmlDeviceGetMemoryBusWidth, handle)
        megahertz = _value(library.nvmlDeviceGetMaxClockInfo, handle, library.NVML_CLOCK_MEM)
        return bits / _BITS_PER_BYTE * megahertz / _MHZ_PER_GHZ * _TRANSFERS_PER_CLOCK if bits and megahertz else None

    def read(self, uuid: str) -> GpuReading:
        """Returns what the GPU or MIG instance with this UUID reports now."""
        library, handle = self._handle(uuid)
        if handle is None:
            return GpuReading()
        memory = _value(library.nvmlDeviceGetMemoryInfo, handle)
        temperature = _value(library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU)
        milliwatts = _value(library.nvmlDeviceGetPowerUsage, handle)
        utilization = _value(library.nvmlDeviceGetUtilizationRates, handle)
        return GpuReading(
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_celsius=None if temperature is None else float(temperature),
            power_watts=None if milliwatts is None else milliwatts / MILLIWATTS_PER_WATT,
            utilization_percent=None if utilization is None else float(utilization.gpu),
        )

    def _handle(self, uuid: str) -> tuple[Any, Any]:
        library = self._initialize()
        if library is None:
            return None, None
        handle = self._handles.get(uuid)
        if handle is None:
            handle = _value(library.nvmlDeviceGetHandleByUUID, uuid)
            if handle is not None:
                self._handles[uuid] = handle
        return library, handle

    def _initialize(self) -> Any:
        """Returns the library, ready for calls; None if it can't be used."""
        with self._lock:
            if not self._is_initialized:
                self._is_initialized = True
                try:
                    if self._library is None:
                        import pynvml

                        self._library = pynvml
                    self._library.nvmlInit()
                except Exception as error:  # A missing package, a missing driver, or one of another version.
                    self.problem = str(error) or type(error).__name__
        return None if self.problem else self._library


def _value(function: Callable[..., Value], *arguments: Any) -> Value | None:
    try:
        return function(*arguments)
    except Exception:  # NVML raises for whatever the GPU does not support, and for a GPU that has failed.
        return None


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
