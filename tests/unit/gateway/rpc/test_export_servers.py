"""Connections to single export servers are shared, and closed some time after their last use."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from gateway.rpc import export_servers
from gateway.rpc.export_servers import FULL_NAME, ExportServers
from gateway.rpc.service_client import ServiceClient
from service_runtime.settings import Settings

ADDRESS = "127.0.0.1:1"


@pytest.fixture
def servers() -> ExportServers:
    return ExportServers(ServiceClient(FULL_NAME, ADDRESS, ExportServiceStub, Settings()), Settings())


async def test_connection_is_shared_and_kept_for_a_while(servers: ExportServers) -> None:
    async with servers.at(ADDRESS) as first, servers.at(ADDRESS) as second:
        assert first is second is not servers.any
    async with servers.at(ADDRESS) as third, servers.at("") as any_server:
        assert third is first
        assert any_server is servers.any
    await servers.stop()


async def test_unused_connection_is_closed(servers: ExportServers, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = asyncio.Event()

    async def close(client: ServiceClient[object]) -> None:
        closed.set()

    monkeypatch.setattr(export_servers, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(ServiceClient, "close", close)
    async with servers.at(ADDRESS) as first:
        await asyncio.sleep(0.03)
        assert not closed.is_set()
    async with asyncio.timeout(60):
        await closed.wait()
    async with servers.at(ADDRESS) as second:
        assert second is not first
    await servers.stop()
