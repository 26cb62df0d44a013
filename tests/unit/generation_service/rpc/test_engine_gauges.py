"""The metrics of several engines and their devices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generation_service.engine.engine_status import EngineStatus
from generation_service.hardware.devices import Device
from generation_service.hardware.gpu_readings import GpuReading
from generation_service.processes.engine_client import EngineReport, EngineState
from generation_service.rpc.engine_gauges import read_gauges

STATUS = EngineStatus(
    running=3,
    waiting=2,
    max_batch_size=8,
    max_waiting=16,
    steps_per_second=50.0,
    audio_seconds_per_second=3.0,
    kv_reserved_bytes=100,
    kv_limit_bytes=200,
)
SERVING = EngineReport(Device("cuda:0", "GPU-a", "NVIDIA H200"), EngineState.SERVING, "", 0, STATUS, {})
FAILED = EngineReport(
    Device("cuda:1", "GPU-b", "NVIDIA H200"), EngineState.FAILED, "it hung", 4, replace(STATUS, running=0), {}
)


@pytest.fixture
def gauges() -> dict[str, dict[str, float]]:
    """Name → device → value."""
    readings = [GpuReading(memory_used_bytes=7, temperature_celsius=61.0), GpuReading(memory_used_bytes=9)]
    found: dict[str, dict[str, float]] = {}
    for gauge in read_gauges([SERVING, FAILED], readings):
        found.setdefault(gauge.name, {})[gauge.labels["device"]] = gauge.value
    return found


def test_each_engine_has_its_figures(gauges: dict[str, dict[str, float]]) -> None:
    assert gauges["engine_running"] == {"cuda:0": 3, "cuda:1": 0}
    assert gauges["engine_audio_rate"] == {"cuda:0": 3.0, "cuda:1": 3.0}
    assert gauges["engine_serving"] == {"cuda:0": 1.0, "cuda:1": 0.0}
    assert gauges["engine_restarts"] == {"cuda:0": 0, "cuda:1": 4}


def test_what_a_device_does_not_report_has_no_gauge(gauges: dict[str, dict[str, float]]) -> None:
    assert gauges["device_memory_used_bytes"] == {"cuda:0": 7, "cuda:1": 9}
    assert gauges["device_temperature_celsius"] == {"cuda:0": 61.0}
    assert "device_power_watts" not in gauges
