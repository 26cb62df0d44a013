"""How an address at which no server of ours answers is described, with the other programs running."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.credentials import Credentials
from service_runtime.rpc import connection_diagnosis
from service_runtime.rpc.connection_diagnosis import explain_unknown_method, explain_unreachable
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.certificates import make_credentials
from tests.support.processes import free_ports
from tests.support.scripted_service import ScriptedService


@contextlib.asynccontextmanager
async def program(first_bytes: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A program that answers a connection with these bytes and ends it; with None it says nothing and keeps it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if first_bytes is None:
                await reader.read()
            elif first_bytes:
                await reader.read(1)
                writer.write(first_bytes)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize(
    ("first_bytes", "says"),
    [
        (None, "accepts the connection and says nothing; it belongs to another program, or its server hangs"),
        (b"", "closes the connection at once; it belongs to another program, or its server was ending just now"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "belongs to another program, a web server (HTTP/1)"),
        (b"220 mail.example.org ESMTP\r\n", "belongs to another program, which does not speak gRPC"),
    ],
)
async def test_other_program_is_described(
    first_bytes: bytes | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if first_bytes is None:
        monkeypatch.setattr(connection_diagnosis, "TIMEOUT_SECONDS", 0.2)
    async with program(first_bytes) as address:
        assert await explain_unreachable(address) == f"{address} {says}"


async def test_server_with_tls_is_described(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    credentials = make_credentials(tmp_path)
    context.load_cert_chain(credentials.certificate, credentials.private_key)
    async with program(b"", context) as address:
        says = await explain_unreachable(address)
        assert says.startswith(f"{address} belongs to another program, which requires TLS")
        trusting = Credentials(ca=str(credentials.certificate))
        assert "comes from an authority that DGX_MUSIC_TLS_CA=" in await explain_unreachable(address, trusting)


async def test_server_that_speaks_grpc_is_told_from_others() -> None:
    server = grpc.aio.server()
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    assert await explain_unreachable(address) == f"the server at {address} responds, but ended the call"
    async with connect(address) as channel:
        says = await explain_unknown_method(channel, address, "dgx_music.gateway.v1.MusicService")
    assert says == f"the server at {address} is a gRPC server, but not dgx_music.gateway.v1.MusicService"
    await server.stop(0)


async def test_service_of_another_version_is_told_from_others(service: ScriptedService, settings: Settings) -> None:
    async with serve_services([service], ["127.0.0.1:0"], settings) as [address], connect(address) as channel:
        says = await explain_unknown_method(channel, address, service.full_name)
    assert says == f"the server at {address} does not know this command; its version of DGX Music is another one"


async def test_address_without_a_program_is_described(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{tmp_path}/s")
    for address in (f"127.0.0.1:{port}", f"unix:{tmp_path}/s", f"unix:{tmp_path}/none"):
        assert await explain_unreachable(address) == f"no server listens at {address}"
    assert await explain_unreachable("nowhere.invalid:1") == "there is no host of the name in nowhere.invalid:1"
    assert "only for servers" in await explain_unreachable("127.0.0.1:0")
    assert await explain_unreachable("ipv4:127.0.0.1:1") == ("no server at ipv4:127.0.0.1:1 answers and is SERVING")
    assert await explain_unreachable("127.0.0.1") == "the address 127.0.0.1 must have a port; use 127.0.0.1:50050"
    (tmp_path / "file").touch()
    address = f"unix:{tmp_path}/file/s"
    assert await explain_unreachable(address) == f"can't connect to {address} (Not a directory)"
