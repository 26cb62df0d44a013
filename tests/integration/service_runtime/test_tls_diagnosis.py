"""Why a TLS connection fails, in one sentence that says what to do, against gRPC's own servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.credentials import NO_CREDENTIALS, Credentials
from service_runtime.rpc.connection_diagnosis import explain_unreachable
from tests.support.tls_servers import Authority, make_authority, tls_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


async def test_plain_client_is_told_that_the_server_requires_tls(authority: Authority) -> None:
    async with tls_server(authority.issue("server")) as address:
        problem = await explain_unreachable(address, way_out="check the address")
    assert problem.startswith(f"{address} requires TLS; set DGX_MUSIC_TLS_CA to the file of its certificate authority")
    assert "check the address" not in problem


async def test_tls_client_is_told_that_the_server_has_none(authority: Authority) -> None:
    server = grpc.aio.server()
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    problem = await explain_unreachable(address, Credentials(ca=authority.file))
    await server.stop(None)
    assert (
        problem == f"the server at {address} does not use TLS; unset DGX_MUSIC_TLS_CA, or use the server's TLS address"
    )


@pytest.mark.parametrize(
    ("days", "hosts", "says"),
    [
        (-1, ("127.0.0.1",), "has expired; renew it on the server"),
        (30, ("10.0.0.1",), "is not for the name 127.0.0.1; use one that it is for, or add this one to it"),
    ],
)
async def test_certificate_that_does_not_hold_is_described(
    days: float, hosts: tuple[str, ...], says: str, authority: Authority
) -> None:
    async with tls_server(authority.issue("server", hosts, days=days)) as address:
        problem = await explain_unreachable(address, Credentials(ca=authority.file))
    assert problem == f"the certificate of the server at {address} {says}"


async def test_unknown_authority_names_the_file(authority: Authority, tmp_path: Path) -> None:
    other = make_authority(tmp_path, "other")
    async with tls_server(other.issue("server")) as address:
        problem = await explain_unreachable(address, Credentials(ca=authority.file))
        assert f"comes from an authority that DGX_MUSIC_TLS_CA={authority.file} does not contain" in problem
        problem = await explain_unreachable(address, Credentials(ca="system"))
        assert "DGX_MUSIC_TLS_CA=system does not contain" in problem


async def test_missing_and_foreign_certificates_of_clients_are_described(authority: Authority, tmp_path: Path) -> None:
    own, foreign = authority.issue("client"), make_authority(tmp_path, "other").issue("stranger")
    async with tls_server(authority.issue("server"), authority.file) as address:
        ca = authority.file
        problem = await explain_unreachable(address, Credentials(ca=ca))
        assert problem.startswith(
            f"the server at {address} accepts only clients with a certificate; set DGX_MUSIC_TLS_C"
        )
        problem = await explain_unreachable(address, Credentials(ca=ca, certificate=foreign[0], key=foreign[1]))
        assert f"does not accept the certificate DGX_MUSIC_TLS_CERTIFICATE={foreign[0]}" in problem
        problem = await explain_unreachable(address, Credentials(ca=ca, certificate=own[0], key=own[1]))
        assert problem == f"the server at {address} responds, but ended the call"


async def test_unusable_files_are_named(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("not a certificate")
    server = authority.issue("server")
    async with tls_server(server) as address:
        problem = await explain_unreachable(address, Credentials(ca=str(tmp_path / "text.pem")))
        assert problem.startswith(f"the files for TLS can't be used (DGX_MUSIC_TLS_CA={tmp_path}/text.pem): not PEM")
        problem = await explain_unreachable(address, Credentials(ca=str(tmp_path / "none.pem")))
        assert problem.endswith("none.pem): No such file or directory")


async def test_other_program_at_a_tls_address_is_told_from_a_server(authority: Authority) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        address = "127.0.0.1:" + str(server.sockets[0].getsockname()[1])
        problem = await explain_unreachable(address, Credentials(ca=authority.file))
        assert problem == f"{address} belongs to another program, which does not speak TLS"
    assert await explain_unreachable(address, NO_CREDENTIALS) == f"no server listens at {address}"
