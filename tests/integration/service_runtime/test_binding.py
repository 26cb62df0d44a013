"""Addresses that a server can bind to, and those that it rejects."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dgx_music.channel import connect
from dgx_music.errors import FailedPrecondition
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService


async def test_taken_port_is_rejected(service: ScriptedService, settings: Settings) -> None:
    async with serve_services([service], ["127.0.0.1:0"], settings) as bound:
        with pytest.raises(FailedPrecondition, match="in use by another program; stop it, or set DGX_MUSIC_GATEWAY"):
            async with serve_services([service], bound, settings):
                pass


async def test_port_above_65535_is_rejected(service: ScriptedService, settings: Settings) -> None:
    (port,) = free_ports(1)
    with pytest.raises(FailedPrecondition, match=str(port + 65_536)):
        async with serve_services([service], [f"127.0.0.1:{port + 65_536}"], settings):
            pass


async def test_socket_of_running_server_is_rejected_and_stale_socket_is_replaced(
    service: ScriptedService, settings: Settings, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/s"
    async with serve_services([service], [address], settings):
        with pytest.raises(FailedPrecondition, match="another server listens on it"):
            async with serve_services([service], [address], settings):
                pass
    with socket.socket(socket.AF_UNIX) as stale:  # Leaves its file behind, as a killed server does.
        stale.bind(f"{tmp_path}/s")
    async with serve_services([service], [address], settings) as bound, connect(bound[0]) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)


async def test_socket_is_private_whatever_the_umask(
    service: ScriptedService, settings: Settings, tmp_path: Path
) -> None:
    previous = os.umask(0)
    try:
        async with serve_services([service], [f"unix:{tmp_path}/s"], settings):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
        assert os.umask(0) == 0
    finally:
        os.umask(previous)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("unix:/no/such/folder/s", "the folder /no/such/folder does not exist; create it, or set DGX_MUSIC_GATEWAY"),
        ("nowhere.invalid:1", "there is no host nowhere.invalid; set DGX_MUSIC_GATEWAY_ADDRESS to another address"),
        ("192.0.2.1:1", "192.0.2.1 is not an address of this machine; set DGX_MUSIC_GATEWAY_ADDRESS"),
        ("ipv4:127.0.0.1:1", "it names servers to connect to; set DGX_MUSIC_LISTEN to HOST:PORT"),
        ("127.0.0.1", "it must have a port; use 127.0.0.1:50050"),
    ],
)
async def test_address_that_cannot_be_listened_on_says_why(
    service: ScriptedService, settings: Settings, address: str, says: str
) -> None:
    allowed = settings.model_copy(update={"allow_insecure_listen": True})
    with pytest.raises(FailedPrecondition) as caught:
        async with serve_services([service], [address], allowed):
            pass
    assert caught.value.message.startswith(f"cannot listen on {address}: {says}")


async def test_network_address_requires_allow_insecure_listen(service: ScriptedService, settings: Settings) -> None:
    with pytest.raises(FailedPrecondition, match="ALLOW_INSECURE_LISTEN"):
        async with serve_services([service], ["0.0.0.0:0"], settings):
            pass
    insecure_settings = settings.model_copy(update={"allow_insecure_listen": True})
    async with serve_services([service], ["0.0.0.0:0"], insecure_settings) as bound:
        port = bound[0].rpartition(":")[2]
        async with connect(f"127.0.0.1:{port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:  # Reflection is off on network addresses.
                await reflected_services(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_on_loopback_lists_services(service: ScriptedService, channel: grpc.aio.Channel) -> None:
    names = await reflected_services(channel)
    assert set(names) == {service.full_name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def reflected_services(channel: grpc.aio.Channel) -> list[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=60)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    if answer == grpc.aio.EOF:
        code = await call.code()
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
    names = [service.name for service in answer.list_services_response.service]
    call.cancel()
    return names
