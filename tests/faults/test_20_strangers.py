"""Callers without a valid token, by the hundred: they guess nothing and fill no log, and those who have one are served.
Old versions of TLS and strangers' certificates are refused."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.channel import CHANNEL_OPTIONS, connect
from dgx_music.credentials import Credentials
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from gateway.http.config import HttpSettings
from gateway.http.server import serve_http
from service_runtime.access.caller import Scope
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.access_services import TokenRegistry, bearer
from tests.support.log_capture import captured_logs
from tests.support.scripted_service import ScriptedService
from tests.support.tls_files import TlsFiles, make_tls_files

CONNECTIONS, CALLS_OF_EACH = 4, 200
TIMEOUT_SECONDS = 60.0
REFUSED = ConnectionError, ssl.SSLError


@pytest.fixture
async def registry() -> TokenRegistry:
    return TokenRegistry()


async def guess(address: str, token: str, count: int) -> set[grpc.StatusCode]:
    """Tries so many tokens with the id of a valid one. Returns with what status the calls ended."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    codes = set()
    async with grpc.aio.insecure_channel(address, options) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)

        async def call() -> None:
            wrong = f"{token[:14]}{secrets.token_urlsafe(32)}"[: len(token)]
            request = generation_pb2.LoadModelRequest()
            try:
                await stub.LoadModel(request, metadata=bearer(wrong), timeout=TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())

        await asyncio.gather(*(call() for _ in range(count)))
    return codes


async def test_guesses_find_nothing_and_keep_no_one_out_nor_fill_the_log(
    registry: TokenRegistry, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.log"
    settings = Settings(data_dir=tmp_path, require_tokens=True, grace_seconds=0.1, audit_log=audit)
    token = registry.issue(Scope.ADMIN, "laptop")
    with captured_logs("json") as log:
        async with (
            serve_services([registry, ScriptedService()], ["127.0.0.1:0"], settings) as bound,
            connect(bound[0], Credentials(token=token)) as channel,
        ):
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            guesses = [asyncio.create_task(guess(bound[0], token, CALLS_OF_EACH)) for _ in range(CONNECTIONS)]
            while not all(one.done() for one in guesses):
                await stub.ListModels(generation_pb2.ListModelsRequest(), timeout=TIMEOUT_SECONDS)
            assert {code for one in guesses for code in one.result()} == {grpc.StatusCode.UNAUTHENTICATED}
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert 0 < len([line for line in lines if line["event"] == "rejected"]) < 20
    audited = [json.loads(line) for line in audit.read_text().splitlines()]
    assert 0 < len([line for line in audited if line["code"] == "UNAUTHENTICATED"]) < 20
    assert token[14:] not in log.getvalue() + audit.read_text()


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path / "tls")


@pytest.fixture
async def ports(tls: TlsFiles, registry: TokenRegistry, tmp_path: Path) -> AsyncIterator[list[int]]:
    """Of a gRPC server and of HTTP endpoints that use TLS and require client certificates."""
    shared: dict[str, object] = {**tls.server_settings(), "tls_client_ca": tls.ca, "data_dir": tmp_path}
    shared["grace_seconds"] = 0.1
    http = HttpSettings.model_validate({**shared, "http_listen": "127.0.0.1:0"})
    async with AsyncExitStack() as stack:
        settings = Settings.model_validate(shared)
        bound = await stack.enter_async_context(serve_services([registry], ["127.0.0.1:0"], settings))
        url = await stack.enter_async_context(serve_http(bound[0], http))
        yield [int(address.rpartition(":")[2]) for address in (*bound, url)]


def context(tls: TlsFiles, *, certificate: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if certificate:
        context.load_cert_chain(tls.folder / "client.pem", tls.folder / "client.key")
    return context


async def handshake(port: int, context: ssl.SSLContext) -> tuple[str, str]:
    """Returns the version and the cipher that were agreed on. Raises OSError if the server refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        # With TLS 1.3 a refusal of the certificate comes after the handshake.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" if "h2" in str(agreed(writer)) else b"GET")
        if "h2" in str(agreed(writer)) and not await reader.read(1):
            raise ConnectionResetError
        session = writer.get_extra_info("ssl_object")
        return session.version(), session.cipher()[0]
    finally:
        writer.transport.abort()


def agreed(writer: asyncio.StreamWriter) -> object:
    return writer.get_extra_info("ssl_object").selected_alpn_protocol()


async def test_old_versions_and_weak_ciphers_of_tls_are_refused(ports: list[int], tls: TlsFiles) -> None:
    for port in ports:
        assert (await handshake(port, context(tls)))[0] == "TLSv1.3"
        newest = context(tls)
        newest.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "GCM" in (await handshake(port, newest))[1] or "POLY1305" in (await handshake(port, newest))[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                old = context(tls)
                old.set_ciphers("ALL:@SECLEVEL=0")
                old.minimum_version, old.maximum_version = version, version
                with pytest.raises(REFUSED):
                    await handshake(port, old)
        for cipher in ("AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "NULL"):
            weak = context(tls)
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            weak.set_ciphers(f"{cipher}:@SECLEVEL=0")
            with pytest.raises(REFUSED):
                await handshake(port, weak)


async def test_client_without_a_certificate_of_the_authority_is_refused(
    ports: list[int], tls: TlsFiles, tmp_path: Path
) -> None:
    stranger = make_tls_files(tmp_path / "stranger")
    foreign = context(tls, certificate=False)
    foreign.load_cert_chain(stranger.folder / "client.pem", stranger.folder / "client.key")
    for wrong in (context(tls, certificate=False), foreign):
        wrong.maximum_version = ssl.TLSVersion.TLSv1_2
        for port in ports:
            with pytest.raises(REFUSED):
                await handshake(port, wrong)
