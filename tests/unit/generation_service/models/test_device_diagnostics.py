"""What `dgx-music doctor` says of GPUs and of the engines on them."""

from __future__ import annotations

import subprocess
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Devices
from generation_service.hardware.gpu_readings import GpuReader
from generation_service.models import device_diagnostics
from generation_service.models.device_diagnostics import check_devices
from generation_service.models.finding import Finding
from tests.support.nvml_library import GIB, NvmlGpu, NvmlLibrary


def check(devices: str, *gpus: NvmlGpu) -> dict[str, Finding]:
    found = check_devices(GenerationSettings(devices=devices), Devices(GpuReader(NvmlLibrary(*gpus)), environment={}))
    return {finding.name: finding for finding in found}


@pytest.fixture
def cuda_torch(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Has torch look like a build with CUDA, and Triton's check succeed. Returns the commands that are run."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(device_diagnostics, "torch_cuda_version", lambda: "13.0")
    monkeypatch.setattr("generation_service.hardware.devices.torch_cuda_version", lambda: "13.0")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_each_gpu_and_the_engines_on_them_are_shown(cuda_torch) -> None:
    l4 = NvmlGpu("GPU-b", "NVIDIA L4", (2 * GIB, 24 * GIB), temperature=None, milliwatts=None)
    found = check("all", NvmlGpu("GPU-a"), l4)
    assert found["cuda:0"].found == "NVIDIA H200, 40.0 of 139.0 GiB in use, 61 °C, 432 W"
    assert found["cuda:1"].found == "NVIDIA L4, 2.0 of 24.0 GiB in use"
    assert found["engines"].found == "cuda:0 (batch 128), cuda:1 (batch 32); one process each"
    assert found["triton"].state == "ok"
    [command] = cuda_torch
    assert command[-1] == "generation_service.hardware.triton_check"


def test_compiler_that_fails_does_not_break_generation(cuda_torch, monkeypatch) -> None:
    failure = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nRuntimeError: Failed to find C compiler.\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failure)
    finding = check("auto", NvmlGpu("GPU-a"))["triton"]
    assert (finding.state, finding.found.partition(" ")[2]) == (
        "missing",
        "does not compile: RuntimeError: Failed to find C compiler.",
    )
    assert "apt install gcc" in finding.advice


def test_missing_gpu_and_torch_without_cuda_are_broken(monkeypatch) -> None:
    finding = check("1", NvmlGpu("GPU-a"))["engines"]
    assert (finding.state, finding.found) == ("broken", "DGX_MUSIC_DEVICES is 1")
    assert "numbered 0 to 0" in finding.advice
    monkeypatch.setattr(device_diagnostics, "torch_cuda_version", lambda: None)
    finding = check("0", NvmlGpu("GPU-a"))["engines"]
    assert (finding.state, finding.found) == ("broken", "DGX_MUSIC_DEVICES is 0, but torch has no CUDA")


def test_on_the_cpu_the_engine_is_within_the_service(monkeypatch) -> None:
    assert check("auto")["engines"].found == "cpu (batch 8); within the service"
    assert check("cpu,cpu")["engines"].found == "cpu:0 (batch 8), cpu:1 (batch 8); one process each"


@pytest.mark.parametrize(
    ("installed", "has_gpu", "state", "found"),
    [
        (False, False, "ok", "not installed; only a GPU needs it"),
        (False, True, "missing", "not installed"),
        (True, False, "ok", "not used without a GPU"),
    ],
)
def test_triton_is_needed_on_a_gpu_alone(
    cuda_torch, monkeypatch, installed: bool, has_gpu: bool, state: str, found: str
) -> None:
    def version(distribution: str) -> str:
        if not installed:
            raise metadata.PackageNotFoundError(distribution)
        return "3.7.1"

    monkeypatch.setattr(metadata, "version", version)
    finding = check("auto", *([NvmlGpu("GPU-a")] if has_gpu else []))["triton"]
    assert (finding.state, found in finding.found) == (state, True), finding
    assert cuda_torch == [], "no kernel is compiled"


def test_compiler_that_hangs_or_is_killed_is_reported(cuda_torch, monkeypatch) -> None:
    def hang(command: list[str], **options: object) -> SimpleNamespace:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "timed out after 120 seconds" in check("auto", NvmlGpu("GPU-a"))["triton"].found
    monkeypatch.setattr(subprocess, "run", lambda command, **options: SimpleNamespace(returncode=-11, stderr=""))
    assert "exit status -11" in check("auto", NvmlGpu("GPU-a"))["triton"].found


class TestTorch:
    """What torch says about its devices, where it finds a GPU or should find one."""

    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch", reason="MusicGen needs torch")

    @pytest.fixture
    def gpu(self, torch, monkeypatch) -> None:
        properties = SimpleNamespace(
            name="NVIDIA H200", major=9, minor=0, total_memory=139 * GIB, multi_processor_count=132
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_86"])

    def test_gpu_that_computes_is_ok(self, torch, gpu, monkeypatch) -> None:
        tensor = torch.zeros(1)
        monkeypatch.setattr(torch, "ones", lambda *size, device: tensor)
        finding = check("cpu")["device"]
        assert (finding.state, finding.found) == ("ok", "NVIDIA H200, 139.0 GiB, 132 SMs, sm_90")

    def test_torch_that_is_built_for_other_gpus_is_broken(self, torch, gpu, monkeypatch) -> None:
        def ones(*size: int, device: str) -> None:
            raise RuntimeError("CUDA error: no kernel image is available\nand more")

        monkeypatch.setattr(torch, "ones", ones)
        finding = check("cpu")["device"]
        assert finding.state == "broken"
        assert finding.found.endswith("132 SMs, sm_90: CUDA error: no kernel image is available")
        assert finding.advice.startswith("torch is built for sm_80, sm_86; install a build for sm_90")

    @pytest.mark.parametrize(
        ("cuda", "advice"), [(None, "install the one from PyPI"), ("13.0", "check with nvidia-smi")]
    )
    def test_gpu_that_torch_does_not_use_is_noticed(self, torch, monkeypatch, tmp_path, cuda, advice: str) -> None:
        monkeypatch.setattr(device_diagnostics, "NVIDIA_DEVICE", tmp_path)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        finding = check("cpu")["device"]
        assert finding.state == "missing"
        assert advice in finding.advice
