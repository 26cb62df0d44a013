"""From the setting `devices` to a device per engine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from dgx_music.errors import FailedPrecondition
from generation_service.config import GenerationSettings
from generation_service.hardware import devices as devices_module
from generation_service.hardware.devices import Device, Devices, torch_cuda_version
from generation_service.hardware.gpu_readings import GpuReader, GpuReading
from generation_service.hardware.memory import DeviceMemory
from tests.support.nvml_library import GIB, NvmlGpu, NvmlLibrary

MIG = NvmlGpu("MIG-c", "MIG 1g.18gb", (2 * GIB, 16 * GIB))


def find(*gpus: NvmlGpu, visible: str | None = None, error: str = "") -> Devices:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return Devices(GpuReader(NvmlLibrary(*gpus, mig_instances=(MIG,), init_error=error)), environment)


def two_gpus(visible: str | None = None) -> Devices:
    return find(NvmlGpu("GPU-a0"), NvmlGpu("GPU-b1", "NVIDIA L4", (0, 24 * GIB)), visible=visible)


A, B = Device("cuda:0", "GPU-a0", "NVIDIA H200"), Device("cuda:1", "GPU-b1", "NVIDIA L4")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", (A,)),
        ("all", (A, B)),
        ("1", (B,)),
        ("1,0", (B, A)),
        ("cpu", (Device("cpu"),)),
        ("cpu,cpu", (Device("cpu:0"), Device("cpu:1"))),
    ],
)
def test_choice_gives_a_device_per_engine(choice, expected) -> None:
    assert two_gpus().resolve(choice, has_cuda_torch=True) == expected


def test_auto_is_the_cpu_without_a_gpu_or_a_torch_that_can_use_it() -> None:
    assert find(error="no driver").resolve("auto", has_cuda_torch=True) == (Device("cpu"),)
    assert two_gpus().resolve("auto", has_cuda_torch=False) == (Device("cpu"),)


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", ["GPU-b1"]),
        ("1,0", ["GPU-b1", "GPU-a0"]),
        ("GPU-b", ["GPU-b1"]),
        ("MIG-c", ["MIG-c"]),
        ("0,7,1", ["GPU-a0"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_selects_and_numbers_the_gpus(visible, uuids) -> None:
    devices = two_gpus(visible)
    assert [gpu.uuid for gpu in devices.visible_gpus] == uuids
    if uuids:
        assert [(device.name, device.uuid) for device in devices.resolve("all")] == [
            (f"cuda:{index}", uuid) for index, uuid in enumerate(uuids)
        ]


@pytest.mark.parametrize(
    ("devices", "choice", "message"),
    [
        (
            two_gpus(),
            "0,2",
            "DGX_MUSIC_DEVICES is 0,2, but this machine's GPUs are numbered 0 to 1; use auto or all or",
        ),
        (
            two_gpus("1"),
            "1",
            r"numbered 0 to 0 \(CUDA_VISIBLE_DEVICES is '1'\); use auto or all or 0; `dgx-music doctor",
        ),
        (two_gpus(""), "0", r"no NVIDIA GPU is found \(CUDA_VISIBLE_DEVICES is ''\); set it to cpu, or to auto"),
        (
            find(error="Driver Not Loaded"),
            "all",
            "no NVIDIA GPU is found: Driver Not Loaded; set it to cpu, or to auto",
        ),
    ],
)
def test_missing_gpu_error_names_the_setting_and_the_way_out(devices, choice, message) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        devices.resolve(choice)


@pytest.mark.parametrize("value", ["cuda", "gpu", "cpu,0", "0,0", "0,,1", "", "-1"])
def test_setting_is_rejected_with_what_it_may_be(value) -> None:
    with pytest.raises(ValidationError, match="use auto, all, cpu, cpu,cpu, or the numbers of GPUs"):
        GenerationSettings(devices=value)


def test_setting_may_contain_spaces() -> None:
    assert GenerationSettings(devices=" 0, 1").devices == "0,1"


def test_gpu_that_shares_the_memory_of_the_host_reads_as_that(monkeypatch) -> None:
    monkeypatch.setattr(devices_module, "host_memory", lambda: DeviceMemory(60 * GIB, 120 * GIB))
    devices = find(NvmlGpu("GPU-s", "NVIDIA GB10", memory=None))
    [device] = devices.resolve("0")
    assert devices.read(device) == GpuReading(60 * GIB, 120 * GIB, 61.0, 432.1, 97.0)
    assert devices.read(Device("cpu")) == GpuReading(60 * GIB, 120 * GIB)
    assert devices.max_batch_size(device, GenerationSettings()) == 128


def test_batch_size_is_that_of_each_device_unless_configured() -> None:
    devices, settings = two_gpus(), GenerationSettings()
    assert [devices.max_batch_size(device, settings) for device in (A, B, Device("cpu"))] == [128, 32, 8]
    assert devices.max_batch_size(A, GenerationSettings(max_batch_size=3)) == 3


@pytest.mark.parametrize(
    ("version_file", "cuda"),
    [("cuda: Optional[str] = None\n", None), ("debug = False\ncuda: Optional[str] = '13.0'\n", "13.0"), (None, None)],
)
def test_cuda_version_of_torch_is_read_without_importing_it(monkeypatch, tmp_path, version_file, cuda) -> None:
    if version_file is not None:
        (tmp_path / "version.py").write_text(version_file)
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(devices_module, "find_spec", lambda name: spec)
    assert torch_cuda_version() == cuda


def test_memory_bandwidth_is_that_of_the_slowest_gpu_in_use() -> None:
    h200, l4 = NvmlGpu("GPU-a"), NvmlGpu("GPU-b", bus_bits=192, memory_megahertz=6251)
    gb10 = NvmlGpu("GPU-c", memory=None, bus_bits=None)
    silent = NvmlGpu("GPU-d", bus_bits=None)
    devices = Devices(GpuReader(NvmlLibrary(h200, l4, gb10, silent)), {})
    for choice, expected in {"0": 4917, "0,1": 300, "0,2": 273, "1,3": 0, "3": 0, "cpu": 0}.items():
        assert round(devices.memory_gb_per_second(devices.resolve(choice))) == expected, choice
