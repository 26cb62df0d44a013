"""The gauges of the engines and their devices for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generation_service.hardware.gpu_readings import GpuReading
from generation_service.processes.engine_client import EngineReport, EngineState
from service_runtime.observability.metrics import Gauge

ENGINE_GAUGES = (
    ("running", "Requests in the batch."),
    ("waiting", "Requests waiting to be admitted into the batch."),
    ("steps_per_second", "Decode steps per second, over ten seconds."),
    ("audio_seconds_per_second", "Seconds of audio generated per second, over ten seconds."),
    ("kv_reserved_bytes", "KV cache memory that requests have reserved."),
    ("kv_limit_bytes", "KV cache memory that requests can reserve."),
)
"""Pairs of a field of EngineStatus and its meaning."""
NAMES = {"audio_seconds_per_second": "audio_rate"}
"""Fields whose gauge has another name."""
DEVICE_GAUGES = (
    ("memory_used_bytes", "Memory of the device in use, by all processes."),
    ("memory_total_bytes", "Memory of the device."),
    ("temperature_celsius", "Temperature of the GPU."),
    ("power_watts", "Power draw of the GPU."),
    ("utilization_percent", "Share of the time in which the GPU was busy."),
)
"""Pairs of a field of GpuReading and its meaning."""


def read_gauges(engines: Sequence[EngineReport], readings: Sequence[GpuReading]) -> Iterator[Gauge]:
    """Yields a gauge per engine for each figure, and per device for each figure that it reports."""
    labels = [{"device": engine.device.name} for engine in engines]
    for field, text in ENGINE_GAUGES:
        for engine, label in zip(engines, labels, strict=True):
            yield Gauge(f"engine_{NAMES.get(field, field)}", text, getattr(engine.status, field), label)
    for engine, label in zip(engines, labels, strict=True):
        is_serving = engine.state is EngineState.SERVING
        yield Gauge("engine_serving", "1 if the engine accepts requests, else 0.", float(is_serving), label)
    for engine, label in zip(engines, labels, strict=True):
        yield Gauge("engine_restarts", "How often the process of the engine was replaced.", engine.restarts, label)
    for field, text in DEVICE_GAUGES:
        for reading, label in zip(readings, labels, strict=True):
            if (value := getattr(reading, field)) is not None:
                yield Gauge(f"device_{field}", text, value, label)
