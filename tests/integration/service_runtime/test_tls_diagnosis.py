"""Why a TLS connection fails, in one sentence that says what to do, against gRPC's own servers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.credentials import NO_CREDENTIALS, Credentials
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from tests.support.tls_files import LOOPBACK, TlsFiles, clock_of_issue, make_tls_files


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path)


@asynccontextmanager
async def tls_server(files: TlsFiles, client_ca: Path | None = None) -> AsyncIterator[str]:
    """Runs a gRPC server without any service, and yields its address."""
    chain, key = ((files.folder / name).read_bytes() for name in ("server.pem", "server.key"))
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials(
        [(key, chain)], None if client_ca is None else client_ca.read_bytes(), client_ca is not None
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_plain_client_is_told_that_the_server_requires_tls(files: TlsFiles) -> None:
    async with tls_server(files) as address:
        problem = await explain_unreachable(address, way_out="check the address")
    assert problem.startswith(f"{address} requires TLS; set DGX_MUSIC_TLS_CA to the file of its certificate authority")
    assert "check the address" not in problem


async def test_tls_client_is_told_that_the_server_has_none(files: TlsFiles) -> None:
    server = grpc.aio.server()
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    problem = await explain_unreachable(address, files.credentials())
    await server.stop(None)
    assert (
        problem == f"the server at {address} does not use TLS; unset DGX_MUSIC_TLS_CA, or use the server's TLS address"
    )


@pytest.mark.parametrize(
    ("issued_days_ago", "hosts", "says"),
    [
        (400, LOOPBACK, "has expired; renew it on the server"),
        (0, ("10.0.0.1",), "is not for the name 127.0.0.1; use one that it is for, or add this one to it"),
    ],
)
async def test_certificate_that_does_not_hold_is_described(
    issued_days_ago: float, hosts: tuple[str, ...], says: str, files: TlsFiles
) -> None:
    with clock_of_issue(datetime.now(UTC) - timedelta(days=issued_days_ago)):
        files.issue(hosts)
    async with tls_server(files) as address:
        problem = await explain_unreachable(address, files.credentials())
    assert problem == f"the certificate of the server at {address} {says}"


async def test_unknown_authority_names_the_file(files: TlsFiles, tmp_path: Path) -> None:
    async with tls_server(make_tls_files(tmp_path / "other")) as address:
        problem = await explain_unreachable(address, files.credentials())
        assert f"comes from an authority that DGX_MUSIC_TLS_CA={files.ca} does not contain" in problem
        problem = await explain_unreachable(address, Credentials(ca="system"))
        assert "DGX_MUSIC_TLS_CA=system does not contain" in problem


async def test_missing_and_foreign_certificates_of_clients_are_described(files: TlsFiles, tmp_path: Path) -> None:
    async with tls_server(files, files.ca) as address:
        problem = await explain_unreachable(address, files.credentials())
        assert problem.startswith(
            f"the server at {address} accepts only clients with a certificate; set DGX_MUSIC_TLS_C"
        )
        stranger = dataclasses.replace(make_tls_files(tmp_path / "other").credentials("client"), ca=str(files.ca))
        problem = await explain_unreachable(address, stranger)
        assert f"does not accept the certificate DGX_MUSIC_TLS_CERTIFICATE={stranger.certificate}" in problem
        problem = await explain_unreachable(address, files.credentials("client"))
        assert problem == f"the server at {address} responds, but ended the call"


async def test_unusable_files_are_named(files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("not a certificate")
    async with tls_server(files) as address:
        problem = await explain_unreachable(address, Credentials(ca=str(tmp_path / "text.pem")))
        assert problem.startswith(f"the files for TLS can't be used (DGX_MUSIC_TLS_CA={tmp_path}/text.pem): not PEM")
        problem = await explain_unreachable(address, Credentials(ca=str(tmp_path / "none.pem")))
        assert problem.endswith("none.pem): No such file or directory")


async def test_other_program_at_a_tls_address_is_told_from_a_server(files: TlsFiles) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        address = "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
        problem = await explain_unreachable(address, files.credentials())
        assert problem == f"{address} belongs to another program, which does not speak TLS"
    assert await explain_unreachable(address, NO_CREDENTIALS) == f"no server listens at {address}"
