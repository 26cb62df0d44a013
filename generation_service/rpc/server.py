"""Builds the generation service and runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc.aio

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.engine.engine import Engine
from generation_service.models.catalog import ModelCatalog
from generation_service.models.discovery import find_installed_models
from generation_service.rpc.servicer import GenerationServicer
from generation_service.worker.worker import Worker
from service_runtime.observability.metrics import Gauge
from service_runtime.rpc.health_check import require_serving
from service_runtime.rpc.process import run_process

STORAGE_SERVICE = "dgx_music.storage.v1.StorageService"
EXPORT_SERVICE = "dgx_music.export.v1.ExportService"


class GenerationService:
    """The engine, the servicer and the claim worker. Implements `service_runtime.rpc.service.Service`."""

    full_name = "dgx_music.generation.v1.GenerationService"

    def __init__(self, settings: GenerationSettings, catalog: ModelCatalog) -> None:
        self._settings = settings
        self.engine = Engine(
            catalog,
            max_batch_size=settings.max_batch_size,
            max_waiting=settings.max_waiting,
            buffer_seconds=settings.buffer_seconds,
            stall_seconds=settings.stall_seconds,
        )
        self._servicer = GenerationServicer(self.engine)
        self._worker: Worker | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        await self.engine.start()
        self._storage_channel = connect(self._settings.storage_address)
        self._export_channel = connect(self._settings.export_address)
        storage = storage_pb2_grpc.StorageServiceStub(self._storage_channel)
        self._servicer.export = export = export_pb2_grpc.ExportServiceStub(self._export_channel)
        self._worker = Worker(self.engine, storage, export, self._settings)
        self._worker.start()

    async def check(self) -> None:
        self.engine.check()
        if self._worker is not None:
            self._worker.check()
        await asyncio.gather(
            require_serving(self._storage_channel, self._settings.storage_address, STORAGE_SERVICE),
            require_serving(self._export_channel, self._settings.export_address, EXPORT_SERVICE),
        )

    def gauges(self) -> Iterator[Gauge]:
        status = self.engine.status()
        yield Gauge("engine_running", "Requests in the batch.", status.running)
        yield Gauge("engine_waiting", "Requests waiting to be admitted into the batch.", status.waiting)
        yield Gauge("engine_steps_per_second", "Decode steps per second, over ten seconds.", status.steps_per_second)
        yield Gauge(
            "engine_audio_rate",
            "Seconds of audio generated per second, over ten seconds.",
            status.audio_seconds_per_second,
        )
        yield Gauge(
            "engine_kv_reserved_bytes", "KV cache memory that requests have reserved.", status.kv_reserved_bytes
        )
        yield Gauge("engine_kv_limit_bytes", "KV cache memory that requests can reserve.", status.kv_limit_bytes)

    async def drain(self) -> None:
        if self._worker is not None:
            await self._worker.drain(self._settings.grace_seconds)

    async def stop(self) -> None:
        await self.engine.stop()
        if self._worker is not None:
            await asyncio.gather(self._storage_channel.close(), self._export_channel.close())


def build(settings: GenerationSettings, *, catalog: ModelCatalog | None = None) -> GenerationService:
    """Builds the service from its settings, by default with the models that are installed on this machine.

    Raises FailedPrecondition or InvalidArgument if the configured default model is not among them.
    """
    return GenerationService(settings, catalog or find_installed_models(settings))


def main() -> None:
    """Runs the service in this process until SIGTERM."""
    run_process(GenerationSettings, "generation_address", build)


if __name__ == "__main__":
    main()
