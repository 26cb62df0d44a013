"""Builds the gateway as a service that a server can run."""

from __future__ import annotations

import asyncio

import grpc.aio

from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.gateway.v1.gateway_pb2_grpc import add_MusicServiceServicer_to_server
from dgx_music.generation.v1.generation_pb2_grpc import GenerationServiceStub
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.config import GatewaySettings
from gateway.rpc.export_servers import ExportServers
from gateway.rpc.service_client import ServiceClient
from gateway.rpc.servicer import MusicServicer
from service_runtime.rpc.process import run_process
from service_runtime.rpc.service import Service


class MusicService:
    """The gateway. It holds no state, so any number of gateways may share the same services."""

    # Reflection finds a service only if its descriptor is loaded. The stubs alone don't load this one, because the
    # gateway's proto file defines no messages of its own.
    full_name = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].full_name

    def __init__(self, settings: GatewaySettings) -> None:
        storage = ServiceClient(
            "dgx_music.storage.v1.StorageService", settings.storage_address, StorageServiceStub, settings
        )
        export = ServiceClient(
            "dgx_music.export.v1.ExportService", settings.export_address, ExportServiceStub, settings
        )
        generation = ServiceClient(
            "dgx_music.generation.v1.GenerationService", settings.generation_address, GenerationServiceStub, settings
        )
        self._clients = (storage, export, generation)
        self._servicer = MusicServicer(storage, export, generation, ExportServers(export, settings))

    def add_to(self, server: grpc.aio.Server) -> None:
        add_MusicServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        for client in self._clients:
            client.open()

    async def check(self) -> None:
        await asyncio.gather(*(client.check() for client in self._clients))

    async def drain(self) -> None:
        """Does nothing: the gateway has no work besides its calls."""

    async def stop(self) -> None:
        await self._servicer.stop()
        for client in self._clients:
            await client.close()


def build(settings: GatewaySettings) -> Service:
    """Builds the gateway service."""
    return MusicService(settings)


def main() -> None:
    """Serves until SIGTERM."""
    run_process(GatewaySettings, "address", build)


if __name__ == "__main__":
    main()
