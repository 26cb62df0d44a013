"""The metrics of several engines and their devices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generation_service.engine.engine_status import EngineStatus
from generation_service.hardware.devices import Device
from generation_service.hardware.gpu_readings import GpuReading
from generation_service.processes.engine_client import EngineReport, EngineState
from generation_service.rpc.engine_metrics import read_engine_metrics

STATUS = EngineStatus(
    running=3,
    waiting=2,
    max_batch_size=8,
    max_waiting=16,
    steps_per_second=50.0,
    audio_seconds_per_second=3.0,
    kv_reserved_bytes=100,
    kv_limit_bytes=200,
    total_audio_seconds=90.0,
)
SERVING = EngineReport(Device("cuda:0", "GPU-a", "NVIDIA H200"), EngineState.SERVING, "", 0, STATUS, {})
FAILED = EngineReport(
    Device("cuda:1", "GPU-b", "NVIDIA H200"), EngineState.FAILED, "it hung", 4, replace(STATUS, running=0), {}
)


@pytest.fixture
def metrics() -> dict[str, dict[str, float]]:
    """Name → device → value."""
    readings = [
        GpuReading(memory_used_bytes=7, temperature_celsius=61.0, utilization_percent=97),
        GpuReading(memory_used_bytes=9),
    ]
    found: dict[str, dict[str, float]] = {}
    for reading in read_engine_metrics([SERVING, FAILED], readings):
        name = reading.name.removeprefix("dgx_music_")
        found.setdefault(name, {})[reading.labels["device"]] = reading.value
    return found


def test_each_engine_has_its_figures(metrics: dict[str, dict[str, float]]) -> None:
    assert metrics["engine_running"] == {"cuda:0": 3, "cuda:1": 0}
    assert metrics["engine_audio_seconds_total"] == {"cuda:0": 90.0, "cuda:1": 90.0}
    assert metrics["engine_serving"] == {"cuda:0": 1.0, "cuda:1": 0.0}
    assert metrics["engine_restarts_total"] == {"cuda:0": 0, "cuda:1": 4}


def test_what_a_device_does_not_report_has_no_gauge(metrics: dict[str, dict[str, float]]) -> None:
    assert metrics["device_memory_used_bytes"] == {"cuda:0": 7, "cuda:1": 9}
    assert metrics["device_temperature_celsius"] == {"cuda:0": 61.0}
    assert metrics["device_utilization_ratio"] == {"cuda:0": pytest.approx(0.97)}
    assert "device_power_watts" not in metrics
