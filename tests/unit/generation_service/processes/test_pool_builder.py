"""Which engines the settings ask for. None is started."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Devices
from generation_service.hardware.gpu_readings import GpuReader
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_process import EngineProcess
from generation_service.processes.local_engine import LocalEngine
from generation_service.processes.pool_builder import build_pool
from tests.support.nvml_library import GIB, NvmlGpu, NvmlLibrary
from tests.support.tone_model import ToneModel


def engines(**settings: object) -> list[LocalEngine | EngineProcess]:
    library = NvmlLibrary(NvmlGpu("GPU-a"), NvmlGpu("GPU-b", "NVIDIA L4", (0, 24 * GIB)))
    catalog = ModelCatalog(lambda: [ToneModel().entry])
    pool = build_pool(GenerationSettings(**settings), catalog, devices=Devices(GpuReader(library), {}))
    return list(pool._engines)


def test_single_cpu_engine_runs_in_this_process() -> None:
    [engine] = engines(devices="cpu")
    assert isinstance(engine, LocalEngine)
    assert (engine.device.name, engine.capacity) == ("cpu", 8)


def test_each_gpu_has_a_process_that_sees_only_it_and_preloads_the_default_model() -> None:
    first, second = engines(devices="all")
    assert isinstance(first, EngineProcess)
    assert isinstance(second, EngineProcess)
    assert [engine._environment for engine in (first, second)] == [
        {"CUDA_VISIBLE_DEVICES": "GPU-a"},
        {"CUDA_VISIBLE_DEVICES": "GPU-b"},
    ]
    assert [engine.max_batch_size for engine in (first, second)] == [128, 32]
    assert first._preload == second._preload == "tone"
    assert first._memory_gb_per_second == second._memory_gb_per_second > 4000
    assert first.capacity == 0  # It has not started.


def test_processes_on_the_cpu_share_its_cores_and_see_no_gpu() -> None:
    for engine in engines(devices="cpu,cpu", max_batch_size=3):
        assert isinstance(engine, EngineProcess)
        assert engine._environment["CUDA_VISIBLE_DEVICES"] == ""
        assert int(engine._environment["OMP_NUM_THREADS"]) >= 1
        assert (engine.max_batch_size, engine._preload) == (3, None)


def test_preload_can_be_switched_off_and_must_be_installed() -> None:
    assert engines(devices="0", preload="none")[0]._preload is None
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRELOAD is bell: there is no model 'bell'; available"):
        engines(devices="0", preload="bell")
