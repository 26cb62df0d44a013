"""NVML's answers, and those it doesn't give."""

from __future__ import annotations

from generation_service.hardware.gpu_readings import Gpu, GpuReader, GpuReading
from tests.support.nvml_library import GIB, NvmlGpu, NvmlLibrary

GB10 = NvmlGpu("GPU-b", "NVIDIA GB10", memory=None, temperature=48, milliwatts=31_000, utilization=12)
MIG = NvmlGpu("MIG-c", "NVIDIA H200 MIG 1g.18gb", (2 * GIB, 16 * GIB), None, None, None)


def test_gpus_are_listed_and_read_in_units_of_the_contract() -> None:
    reader = GpuReader(NvmlLibrary(NvmlGpu("GPU-a"), GB10))
    assert reader.gpus() == (Gpu("GPU-a", "NVIDIA H200"), Gpu("GPU-b", "NVIDIA GB10"))
    assert reader.read("GPU-a") == GpuReading(40 * GIB, 139 * GIB, 61.0, 432.1, 97.0)


def test_value_that_a_gpu_does_not_support_is_none() -> None:
    reader = GpuReader(NvmlLibrary(GB10, mig_instances=(MIG,)))
    assert reader.read("GPU-b") == GpuReading(None, None, 48.0, 31.0, 12.0)
    assert reader.name("MIG-c") == "NVIDIA H200 MIG 1g.18gb"
    assert reader.read("MIG-c") == GpuReading(2 * GIB, 16 * GIB, None, None, None)


def test_memory_bandwidth_is_that_of_the_data_sheet() -> None:
    h100 = NvmlGpu("GPU-h", bus_bits=5120, memory_megahertz=2619)
    rtx4090 = NvmlGpu("GPU-r", bus_bits=384, memory_megahertz=10501)
    gb10 = NvmlGpu("GPU-b", memory_megahertz=None)
    reader = GpuReader(NvmlLibrary(NvmlGpu("GPU-a"), h100, rtx4090, gb10))
    bandwidths = [reader.memory_gb_per_second(uuid) for uuid in ("GPU-a", "GPU-h", "GPU-r", "GPU-b", "GPU-x")]
    assert [value and round(value) for value in bandwidths] == [4917, 3352, 1008, None, None]


def test_gpu_that_is_gone_reads_as_nothing() -> None:
    reader = GpuReader(NvmlLibrary(NvmlGpu("GPU-a")))
    assert (reader.name("GPU-x"), reader.read("GPU-x")) == ("", GpuReading())


def test_without_a_driver_there_are_no_gpus_and_the_problem_is_known() -> None:
    reader = GpuReader(NvmlLibrary(NvmlGpu("GPU-a"), init_error="Driver Not Loaded"))
    assert (reader.gpus(), reader.read("GPU-a"), reader.problem) == ((), GpuReading(), "Driver Not Loaded")
