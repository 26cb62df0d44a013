"""`dgx-music serve` with TLS and tokens, and commands as its clients: each in this process, with real services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
from gateway.embedded import services
from gateway.embedded.ownership import Owner, acquire_or_join
from gateway.embedded.service_set import DATABASE
from gateway.embedded.services import run_embedded_services
from tests.support.access_services import SERVICE_TOKEN
from tests.support.command_line import InProcessShell, Shell
from tests.support.tls_files import make_tls_files

FORGED = "dgxm_aaaaaaaa_" + "a" * 43


@asynccontextmanager
async def served(data_dir: Path, **settings: object) -> AsyncIterator[list[str]]:
    """The addresses of storage and the gateway as `serve` runs them."""
    with acquire_or_join(data_dir) as owner:
        assert isinstance(owner, Owner)
        async with run_embedded_services(
            owner, data_dir, service_set=DATABASE, public_address="127.0.0.1:0", overrides=settings
        ) as bound:
            yield bound


async def list_generations(address: str, credentials: Credentials) -> grpc.StatusCode:
    async with connect(address, credentials) as channel:
        music = gateway_pb2_grpc.MusicServiceStub(channel)
        try:
            await music.ListGenerations(ListGenerationsRequest(), timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_services_in_one_process_recognize_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.secrets, "token_urlsafe", lambda: SERVICE_TOKEN)
    files = make_tls_files(tmp_path / "tls")
    settings = files.server_settings() | {"require_tokens": True}
    async with served(tmp_path / "data", **settings) as (unix, public):
        service = files.credentials(token=SERVICE_TOKEN)
        for address in (unix, public):
            assert await list_generations(address, files.credentials()) is grpc.StatusCode.UNAUTHENTICATED
            assert await list_generations(address, files.credentials(token=FORGED)) in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.UNAVAILABLE,
            )
            assert await list_generations(address, service) is grpc.StatusCode.OK


async def test_unix_socket_of_a_server_needs_nothing_by_default(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as addresses:
        for address in addresses:
            assert await list_generations(address, NO_CREDENTIALS) is grpc.StatusCode.OK


def test_commands_without_a_server_need_no_token(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shell = InProcessShell(tmp_path, capfd)
    shell.run("stats", DGX_MUSIC_REQUIRE_TOKENS="true", DGX_MUSIC_TOKEN=FORGED)
    error = shell.error("stats", status=1, DGX_MUSIC_TOKEN_FILE="/no/such", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:1")
    assert error == "error: DGX_MUSIC_TOKEN_FILE=/no/such: No such file or directory"


async def test_command_shows_what_its_settings_have(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path / "tls")
    settings = files.server_settings() | {"service_token": SERVICE_TOKEN, "tls_client_ca": files.ca}
    async with served(tmp_path / "data", **settings, require_tokens=True) as (_, public):
        shell, folder = Shell(tmp_path / "other"), files.folder
        shown = {
            "DGX_MUSIC_GATEWAY_ADDRESS": public,
            "DGX_MUSIC_TLS_CA": str(files.ca),
            "DGX_MUSIC_TLS_CERTIFICATE": f"{folder}/client.pem",
            "DGX_MUSIC_TLS_KEY": f"{folder}/client.key",
            "DGX_MUSIC_TOKEN": SERVICE_TOKEN,
        }
        await asyncio.to_thread(shell.run, "stats", **shown)
