"""The metrics of the engines and their devices for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from generation_service.hardware.gpu_readings import GpuReading
from generation_service.processes.engine_client import EngineReport, EngineState
from service_runtime.observability.metrics import Reading

ENGINE_FIELDS = (
    ("running", "running", "Requests in the batch."),
    ("waiting", "waiting", "Requests waiting to be admitted into the batch."),
    ("batch_limit", "max_batch_size", "Requests that fit into the batch."),
    ("kv_reserved_bytes", "kv_reserved_bytes", "KV cache memory that requests have reserved."),
    ("kv_limit_bytes", "kv_limit_bytes", "KV cache memory that requests can reserve."),
    ("audio_seconds_total", "total_audio_seconds", "Length of the audio that the engine's process has generated."),
    ("step_seconds", "step_seconds", "Duration of the decode steps of a batch."),
    ("batch_size", "batch_sizes", "Requests in the batch of a decode step."),
)
"""Name without the prefix, field of EngineStatus, meaning."""
DEVICE_FIELDS = (
    ("memory_used_bytes", "memory_used_bytes", "Memory of the device in use, by all processes.", 1.0),
    ("memory_total_bytes", "memory_total_bytes", "Memory of the device.", 1.0),
    ("temperature_celsius", "temperature_celsius", "Temperature of the GPU.", 1.0),
    ("power_watts", "power_watts", "Power draw of the GPU.", 1.0),
    ("utilization_ratio", "utilization_percent", "Share of the time in which the GPU was busy, 0 to 1.", 0.01),
)
"""Name without the prefix, field of GpuReading, meaning, and what the field is multiplied by."""


def read_engine_metrics(engines: Sequence[EngineReport], readings: Sequence[GpuReading]) -> Iterator[Reading]:
    """Yields a reading per engine for each figure, and per device for each figure that it reports."""
    labels = [{"device": engine.device.name} for engine in engines]
    for name, field, text in ENGINE_FIELDS:
        for engine, label in zip(engines, labels, strict=True):
            yield Reading(f"dgx_music_engine_{name}", text, getattr(engine.status, field), label)
    for engine, label in zip(engines, labels, strict=True):
        is_serving = engine.state is EngineState.SERVING
        yield Reading("dgx_music_engine_serving", "1 if the engine accepts requests, else 0.", float(is_serving), label)
    for engine, label in zip(engines, labels, strict=True):
        text = "How often the process of the engine was replaced."
        yield Reading("dgx_music_engine_restarts_total", text, engine.restarts, label)
    for name, field, text, factor in DEVICE_FIELDS:
        for reading, label in zip(readings, labels, strict=True):
            if (value := getattr(reading, field)) is not None:
                yield Reading(f"dgx_music_device_{name}", text, value * factor, label)
