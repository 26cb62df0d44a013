"""TLS and mutual TLS with real handshakes: whom servers and clients accept, and what happens when files are renewed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import connect
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2
from service_runtime.access.caller import Scope, current_caller
from service_runtime.access.service_channel import connect_service
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from service_runtime.rpc.probe import probe
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.access_services import TokenRegistry, call
from tests.support.log_capture import captured_logs
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService
from tests.support.tls_files import TlsFiles, make_tls_files

OK, UNAVAILABLE, UNAUTHENTICATED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
)
STATISTICS = storage_pb2.DESCRIPTOR.services_by_name["StorageService"].methods_by_name["GetStatistics"]


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path / "tls")


@pytest.fixture
def stranger(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path / "stranger")


@pytest.fixture
def settings(tmp_path: Path, files: TlsFiles) -> Settings:
    return Settings(data_dir=tmp_path, grace_seconds=0.1, **files.server_settings())


@pytest.fixture
async def registry() -> TokenRegistry:
    return TokenRegistry()


@pytest.fixture
async def address(registry: TokenRegistry, settings: Settings) -> AsyncIterator[str]:
    async with serve_services([registry], ["127.0.0.1:0"], settings) as bound:
        yield bound[0]


@pytest.fixture
async def mutual(registry: TokenRegistry, settings: Settings, files: TlsFiles) -> AsyncIterator[str]:
    """The address of a server that accepts no client without a certificate."""
    settings = settings.model_copy(update={"tls_client_ca": files.ca, "require_tokens": True})
    async with serve_services([registry], ["127.0.0.1:0"], settings) as bound:
        yield bound[0]


async def health_code(address: str, credentials: Credentials) -> grpc.StatusCode:
    async with connect(address, credentials) as channel:
        return await check(channel)


async def check(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """Returns the status of a health check."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return OK


async def test_client_accepts_only_the_server_that_its_authority_vouches_for(
    address: str, files: TlsFiles, stranger: TlsFiles
) -> None:
    assert await health_code(address, files.credentials()) is OK
    assert await health_code(address, stranger.credentials()) is UNAVAILABLE
    assert await health_code(address, NO_CREDENTIALS) is UNAVAILABLE


async def test_failures_are_explained(address: str, files: TlsFiles, stranger: TlsFiles, tmp_path: Path) -> None:
    assert await probe(address, files.credentials()) is None
    assert "requires TLS; set DGX_MUSIC_TLS_CA to the file of its certificate authority" in str(await probe(address))
    assert "comes from an authority that DGX_MUSIC_TLS_CA=" in str(await probe(address, stranger.credentials()))
    files.issue(("other.example.org",))
    assert "is not for the name 127.0.0.1" in str(await probe(address, files.credentials()))
    plain = Settings(data_dir=tmp_path, grace_seconds=0.1)
    async with serve_services([ScriptedService()], ["127.0.0.1:0"], plain) as bound:
        assert await explain_unreachable(bound[0], files.credentials()) == (
            f"the server at {bound[0]} does not use TLS; unset DGX_MUSIC_TLS_CA, or use the server's TLS address"
        )


async def test_strangers_certificate_fails_the_handshake(
    mutual: str, registry: TokenRegistry, files: TlsFiles, stranger: TlsFiles
) -> None:
    token = registry.issue(Scope.READ)
    assert await health_code(mutual, files.credentials("client", token=token)) is OK
    async with connect(mutual, files.credentials("client")) as channel:  # It does not replace a token.
        assert await call(channel, STATISTICS) is UNAUTHENTICATED
    without = files.credentials(token=token)
    assert await health_code(mutual, without) is UNAVAILABLE
    theirs = dataclasses.replace(stranger.credentials("client", token=token), ca=str(files.ca))
    assert await health_code(mutual, theirs) is UNAVAILABLE
    theirs_as_service = dataclasses.replace(stranger.credentials("server"), ca=str(files.ca))
    assert await health_code(mutual, theirs_as_service) is UNAVAILABLE
    assert "accepts only clients with a certificate; set DGX_MUSIC_TLS_CERTIFICATE" in str(await probe(mutual, without))
    assert "does not accept the certificate DGX_MUSIC_TLS_CERTIFICATE=" in str(await probe(mutual, theirs))


async def test_certificate_of_a_service_needs_no_token(
    registry: TokenRegistry, settings: Settings, files: TlsFiles
) -> None:
    seen: list[Scope] = []
    service = ScriptedService()
    service.behaviour = lambda context: seen.append(current_caller().scope)
    mutual = settings.model_copy(update={"tls_client_ca": files.ca, "require_tokens": True})
    async with (
        serve_services([registry, service], ["127.0.0.1:0"], mutual) as bound,
        connect_service(bound[0], mutual) as channel,
    ):
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        await stub.ListModels(generation_pb2.ListModelsRequest(), timeout=60)
    assert seen == [Scope.SERVICE]


async def test_renewed_certificate_is_used_for_new_connections_and_open_streams_go_on(
    settings: Settings, files: TlsFiles, stranger: TlsFiles, tmp_path: Path
) -> None:
    service = ScriptedService()
    async with serve_services([service], ["127.0.0.1:0"], settings) as bound:
        address, old = bound[0], files.credentials(certificate=None)
        old_ca = tmp_path / "old.pem"
        old_ca.write_bytes(files.ca.read_bytes())
        async with connect(address, dataclasses.replace(old, ca=str(old_ca))) as channel:
            stream = generation_pb2_grpc.GenerationServiceStub(channel).Generate(
                generation_pb2.GenerateRequest(), timeout=60
            )
            await stream.read()
            (files.folder / "server.key").write_bytes((stranger.folder / "server.key").read_bytes())
            with captured_logs("json") as log:  # The certificate has not been replaced yet.
                assert await health_code(address, old) is OK
            assert "does not belong to the certificate" in log.getvalue()
            (files.folder / "server.pem").write_bytes((stranger.folder / "server.pem").read_bytes())
            assert await health_code(address, stranger.credentials()) is OK
            assert await health_code(address, old) is UNAVAILABLE
            assert await stream.read() is not grpc.aio.EOF
            stream.cancel()
            await asyncio.wait_for(service.closed.wait(), 60)


async def test_long_lived_connection_survives_renewed_certificates(
    registry: TokenRegistry, settings: Settings, files: TlsFiles, stranger: TlsFiles
) -> None:
    """All files are replaced, those of the authority too, and the server that is there then knows only the new ones."""
    mutual = settings.model_copy(update={"tls_client_ca": files.ca, "require_tokens": True})
    address = f"127.0.0.1:{free_ports(1)[0]}"
    async with connect_service(address, mutual) as channel:
        async with serve_services([registry], [address], mutual):
            assert await check(channel) is OK
        for name in ("server.key", "server.pem", "ca.pem"):
            (files.folder / name).write_bytes((stranger.folder / name).read_bytes())
        async with serve_services([registry], [address], mutual):
            assert await check(channel) is OK


async def test_unix_socket_uses_no_tls(registry: TokenRegistry, settings: Settings, files: TlsFiles) -> None:
    address = f"unix:{settings.data_dir}/s"
    async with serve_services([registry], [address], settings):
        assert await health_code(address, files.credentials()) is OK
