"""Builds the engines that the settings ask for."""

from __future__ import annotations

import os

from dgx_music.errors import FailedPrecondition, ServiceError
from generation_service.config import NO_PRELOAD, GenerationSettings
from generation_service.engine.engine import Engine
from generation_service.hardware.devices import Device, Devices
from generation_service.models.catalog import ModelCatalog
from generation_service.processes.engine_client import EngineClient
from generation_service.processes.engine_link import HOST_MODULE
from generation_service.processes.engine_pool import EnginePool
from generation_service.processes.engine_process import EngineProcess
from generation_service.processes.local_engine import LocalEngine


def build_pool(
    settings: GenerationSettings, catalog: ModelCatalog, *, devices: Devices | None = None, module: str = HOST_MODULE
) -> EnginePool:
    """Returns the engines, not started yet: a single one on the CPU in this process, else one process per device.

    `module` is the main program of the processes. Raises FailedPrecondition if this machine lacks a configured device,
    or the model to preload is not installed.
    """
    devices = devices or Devices()
    chosen = devices.resolve(settings.devices)
    preload = _model_to_preload(settings, catalog, chosen[0])
    engines: list[EngineClient] = []
    for device in chosen:
        max_batch_size = devices.max_batch_size(device, settings)
        if len(chosen) == 1 and device.kind == "cpu":
            engine = Engine(
                catalog,
                max_batch_size=max_batch_size,
                max_waiting=settings.max_waiting,
                buffer_seconds=settings.buffer_seconds,
                stall_seconds=settings.stall_seconds,
                preload=preload,
            )
            engines.append(LocalEngine(device, engine, max_batch_size=max_batch_size))
        else:
            cpu_threads = None if device.kind == "cuda" else max(1, (os.cpu_count() or 1) // len(chosen))
            engines.append(
                EngineProcess(
                    device,
                    settings,
                    max_batch_size=max_batch_size,
                    preload=preload,
                    memory_gb_per_second=devices.memory_gb_per_second(chosen),
                    cpu_threads=cpu_threads,
                    module=module,
                )
            )
    return EnginePool(catalog, engines, devices)


def _model_to_preload(settings: GenerationSettings, catalog: ModelCatalog, device: Device) -> str | None:
    if settings.preload == NO_PRELOAD:
        return None
    if settings.preload is None:
        return catalog.default_name if device.kind == "cuda" else None
    try:
        return catalog.get(settings.preload).name
    except ServiceError as error:
        raise FailedPrecondition(
            f"DGX_MUSIC_PRELOAD is {settings.preload}: {error.message}", reason=error.reason, metadata=error.metadata
        ) from error
