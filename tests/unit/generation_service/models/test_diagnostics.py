"""What `dgx-music doctor` says of the models."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Devices
from generation_service.hardware.gpu_readings import GpuReader
from generation_service.models import diagnostics, discovery
from tests.support.nvml_library import NvmlGpu, NvmlLibrary


def find_model(folder: Path, tmp_path: Path, **settings: str) -> str:
    values = GenerationSettings(data_dir=tmp_path, model_folders=(folder,), **settings)
    return next(finding.found for finding in diagnostics._check_models(values) if finding.found.startswith("mono"))


def test_reason_of_a_gpus_precision_is_told(mono: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generation_service.models.musicgen import loader

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert find_model(mono, tmp_path, devices="cpu").endswith("NOASSERTION")
    library = NvmlLibrary(NvmlGpu("GPU-a", bus_bits=8, memory_megahertz=1))
    monkeypatch.setattr(discovery, "Devices", lambda: Devices(GpuReader(library), {}))
    monkeypatch.setattr(loader, "resolve_device", lambda device, precision: ("cuda", "bf16"))
    assert "; int8: in bf16 a step would read 0.00 GB" in find_model(mono, tmp_path, devices="0")
    assert find_model(mono, tmp_path, devices="0", precision="bf16").endswith("NOASSERTION")
