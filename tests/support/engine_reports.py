"""`IDLE_REPORT`: what an engine that has nothing to do reports of itself."""

from __future__ import annotations

from generation_service.engine.engine_status import EngineStatus
from generation_service.hardware.devices import Device
from generation_service.processes.engine_client import EngineReport, EngineState

IDLE_REPORT = EngineReport(
    Device("cuda:0", "GPU-a", "NVIDIA H200"),
    EngineState.SERVING,
    "",
    0,
    EngineStatus(0, 0, 8, 16, 0.0, 0.0, 0, 200),
    {},
)
