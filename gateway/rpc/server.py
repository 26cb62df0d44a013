"""The gateway as a service: wiring."""

from __future__ import annotations

import asyncio

import grpc.aio

from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.gateway.v1.gateway_pb2_grpc import add_MusicServiceServicer_to_server
from dgx_music.generation.v1.generation_pb2_grpc import GenerationServiceStub
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.config import GatewaySettings
from gateway.rpc.service_client import Upstream
from gateway.rpc.servicer import MusicServicer
from service_runtime.rpc.service import Service


class MusicService:
    """Holds no state: any number of gateways may stand before the same services."""

    # Its descriptor must be loaded for reflection to find it, which the stubs alone do not do: it has no own messages.
    full_name = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].full_name

    def __init__(self, settings: GatewaySettings) -> None:
        storage = Upstream("dgx_music.storage.v1.StorageService", settings.storage_address, StorageServiceStub)
        export = Upstream("dgx_music.export.v1.ExportService", settings.export_address, ExportServiceStub)
        generation = Upstream(
            "dgx_music.generation.v1.GenerationService", settings.generation_address, GenerationServiceStub
        )
        self._upstreams = (storage, export, generation)
        self._servicer = MusicServicer(storage, export, generation)

    def add_to(self, server: grpc.aio.Server) -> None:
        add_MusicServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        for upstream in self._upstreams:
            upstream.open()

    async def check(self) -> None:
        await asyncio.gather(*(upstream.check() for upstream in self._upstreams))

    async def drain(self) -> None:
        """Nothing runs here but calls."""

    async def stop(self) -> None:
        for upstream in self._upstreams:
            await upstream.close()


def build(settings: GatewaySettings) -> Service:
    return MusicService(settings)
