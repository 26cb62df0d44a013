"""What the client shows servers: tokens and certificates, from arguments, the environment and the config file; and what
it says where these are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dgx_music import AsyncClient, Client
from dgx_music.errors import (
    AlreadyExists,
    ConnectionLost,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from gateway.cli.commands.tls.certificate_authority import CertificateAuthority
from tests.support.music_server import music_server


def test_scope_of_the_token_applies(client: Client, address: str) -> None:
    created = client.tokens.create("reader", scope="read", expires_at=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(AlreadyExists):
        client.tokens.create("reader")
    with Client(address, token=created.secret) as reader:
        assert reader.models()
        with pytest.raises(PermissionDenied):
            reader.submit("a")
        client.tokens.revoke(created.token.id)
        assert [token.name for token in client.tokens.list() if token.HasField("revoked_at")] == ["reader"]
    with Client(address, token="dgxm_aaaaaaaa_wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.models()


def test_environment_names_the_server_the_token_and_the_client(
    client: Client, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", address)
    monkeypatch.setenv("DGX_MUSIC_CLIENT_NAME", "Zoë")
    with Client() as unnamed:
        assert unnamed.submit("a", duration=0.1).client == "Zoë"
    (tmp_path / "token").write_text(client.tokens.create("from a file").secret + "\n")
    monkeypatch.setenv("DGX_MUSIC_TOKEN_FILE", str(tmp_path / "token"))
    with Client() as named:
        assert named.submit("a", duration=0.1).client == "from a file"
        (tmp_path / "token").write_text(client.tokens.create("renewed").secret)
        assert named.submit("a", duration=0.1).client == "renewed"


def test_config_file_is_read_last(
    client: Client, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'gateway_address = "{address}"\nclient_name = "file"\n')
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(config))
    with Client() as configured:
        assert configured.submit("a", duration=0.1).client == "file"
    monkeypatch.setenv("DGX_MUSIC_CLIENT_NAME", "environment")
    with Client() as configured:
        assert configured.submit("a", duration=0.1).client == "environment"
    with Client(client_name="argument") as configured:
        assert configured.submit("a", duration=0.1).client == "argument"


async def call_one_after_another(client: AsyncClient) -> None:
    """More calls at once than the server serves would be SERVER_BUSY."""
    for _ in range(200):
        await client.models()


async def test_busy_server_is_waited_for_if_asked(async_client: AsyncClient, address: str) -> None:
    """A real limit: 120 calls at once, and then one each half a second."""
    secret = (await async_client.tokens.create("hasty", calls_per_minute=120)).secret
    async with AsyncClient(address, token=secret) as hasty:

        async def ask() -> None:
            for _ in range(25):
                await hasty.models()

        with pytest.raises(ResourceExhausted) as caught:
            await call_one_after_another(hasty)
    assert caught.value.reason == "RATE_LIMIT"
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= 0.5
    async with AsyncClient(address, token=secret, wait_if_busy=30) as patient:
        for _ in range(2):
            assert await patient.models()


@dataclass(frozen=True)
class SecureServer:
    address: str
    folder: Path
    """With the files of the authority, the server and a client."""
    token: str


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    """A server that asks for a client certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = CertificateAuthority.create("test")
    (folder / "ca.pem").write_bytes(authority.certificate_pem())
    (folder / "other.pem").write_bytes(CertificateAuthority.create("other").certificate_pem())
    for name, files in (("server", authority.issue_server(["127.0.0.1"])), ("client", authority.issue_client())):
        for suffix, content in zip(("pem", "key"), files, strict=True):
            (folder / f"{name}.{suffix}").write_bytes(content)
    settings = {
        "tls_certificate": folder / "server.pem",
        "tls_key": folder / "server.key",
        "tls_client_ca": folder / "ca.pem",
    }
    with music_server(tmp_path_factory.mktemp("secure"), "127.0.0.1:0", **settings) as (local, public):
        with Client(local) as owner:
            token = owner.tokens.create("alice").secret
        yield SecureServer(public, folder, token)


def test_music_is_made_over_mutual_tls(secure: SecureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "tls_ca": secure.folder / "ca.pem",
        "tls_certificate": secure.folder / "client.pem",
        "tls_key": secure.folder / "client.key",
    }
    with Client(secure.address, token=secure.token, **files) as client:
        generation = client.generate("house", duration=0.5)
        assert generation.client == "alice"
        assert generation.save(tmp_path / "a.mp3").is_file()
    for name, file in files.items():
        monkeypatch.setenv(f"DGX_MUSIC_{name.upper()}", str(file))
    with Client(secure.address) as client:
        assert client.models()


@pytest.mark.slow
def test_tls_that_fails_is_explained(secure: SecureServer) -> None:
    folder = secure.folder
    own = {"tls_certificate": folder / "client.pem", "tls_key": folder / "client.key"}
    for files, text in (
        ({"tls_ca": folder / "other.pem", **own}, "not from the certificate authority in tls_ca"),
        ({"tls_ca": folder / "ca.pem"}, "tls_certificate"),
        ({}, "tls_ca"),
    ):
        with Client(secure.address, **files) as client, pytest.raises(ConnectionLost) as caught:  # type: ignore[arg-type]
            client.models()
        assert f"no answer from the server at {secure.address}" in str(caught.value)
        assert text in str(caught.value)
