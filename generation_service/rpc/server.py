"""Builds the generation service and runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.models.catalog import ModelCatalog
from generation_service.models.discovery import find_installed_models
from generation_service.processes.engine_link import HOST_MODULE
from generation_service.processes.engine_pool import EnginePool
from generation_service.processes.pool_builder import build_pool
from generation_service.rpc.engine_metrics import read_engine_metrics
from generation_service.rpc.part_requests import PartRequests
from generation_service.rpc.servicer import GenerationServicer
from generation_service.worker.worker import Worker
from service_runtime.access.service_channel import connect_service
from service_runtime.observability.metrics import Reading
from service_runtime.rpc.health.health_check import require_serving
from service_runtime.rpc.process import run_process

STORAGE_SERVICE = "dgx_music.storage.v1.StorageService"
EXPORT_SERVICE = "dgx_music.export.v1.ExportService"


class GenerationService:
    """The engines, the servicer and the claim worker. Implements `service_runtime.rpc.service.Service`."""

    full_name = "dgx_music.generation.v1.GenerationService"

    def __init__(self, settings: GenerationSettings, engine: EnginePool) -> None:
        self._settings = settings
        self.engine = engine
        self._servicer = GenerationServicer(self.engine)
        self._worker: Worker | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        await self.engine.start()
        self._storage_channel = connect_service(self._settings.storage_address, self._settings)
        self._export_channel = connect_service(self._settings.export_address, self._settings)
        storage = storage_pb2_grpc.StorageServiceStub(self._storage_channel)
        self._servicer.export = export = export_pb2_grpc.ExportServiceStub(self._export_channel)
        self._servicer.parts = PartRequests(self.engine.catalog, storage, export)
        storage_health = health_pb2_grpc.HealthStub(self._storage_channel)
        self._worker = Worker(self.engine, storage, export, self._settings, storage_health)
        self._worker.start()

    async def check(self) -> None:
        self.engine.check()
        if self._worker is not None:
            self._worker.check()
        await asyncio.gather(
            require_serving(self._storage_channel, self._settings.storage_address, STORAGE_SERVICE),
            require_serving(self._export_channel, self._settings.export_address, EXPORT_SERVICE),
        )

    def read_metrics(self) -> Iterator[Reading]:
        return read_engine_metrics(self.engine.reports(), self.engine.readings())

    async def drain(self) -> None:
        if self._worker is not None:
            await self._worker.drain(self._settings.grace_seconds)

    async def stop(self) -> None:
        await self.engine.stop()
        if self._worker is not None:
            await asyncio.gather(self._storage_channel.close(), self._export_channel.close())


def build(
    settings: GenerationSettings, *, catalog: ModelCatalog | None = None, engine_module: str = HOST_MODULE
) -> GenerationService:
    """Builds the service from its settings, by default with the models that are installed on this machine.

    `engine_module` is the main program of engine processes, which find the models by themselves. Raises
    FailedPrecondition or InvalidArgument if the configured default model is not installed, and FailedPrecondition if
    this machine lacks a configured device.
    """
    catalog = catalog or find_installed_models(settings)
    return GenerationService(settings, build_pool(settings, catalog, module=engine_module))


def main() -> None:
    """Runs the service in this process until SIGTERM."""
    run_process(GenerationSettings, "generation_address", build)


if __name__ == "__main__":
    main()
