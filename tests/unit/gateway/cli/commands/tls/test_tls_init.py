"""`dgx-music tls init` in the test's process: what it writes and prints, and when it refuses."""

from __future__ import annotations

import json
import shlex
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from gateway.cli.commands.tls import tls_init
from gateway.cli.commands.tls.certificate_authority import hosts_of, identities_of, write_files
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError
from service_runtime.settings import Settings
from tests.support.tls_files import clock_of_issue


def init(folder: Path, *hosts: str, renew: bool = False, as_json: bool = False) -> None:
    assert tls_init.init(folder, hosts, Console(as_json=as_json), renew=renew) == 0


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def verifier(folder: Path) -> PolicyBuilder:
    return PolicyBuilder().store(Store([certificate(folder / "ca.pem")]))


def test_data_directory_that_did_not_exist_is_private(tmp_path: Path) -> None:
    init(tmp_path / "data/tls")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_certificates_verify_and_keys_are_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tls"
    init(folder, "dgx.example.org", "10.0.0.7", "[fd00::7]")
    server, client = certificate(folder / "server.pem"), certificate(folder / "client.pem")
    policy = verifier(folder)
    for name in ("localhost", "dgx.example.org"):
        policy.build_server_verifier(x509.DNSName(name)).verify(server, [])
    for address in ("127.0.0.1", "::1", "10.0.0.7", "fd00::7"):
        assert address in hosts_of(server)
    for leaf in (server, client):
        policy.build_client_verifier().verify(leaf, [])
    assert identities_of(server) == ["dgx-music:service"]
    assert identities_of(client) == ["dgx-music:client"]
    assert hosts_of(certificate(folder / "ca.pem")) == identities_of(certificate(folder / "ca.pem")) == []
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {"ca.key", "server.key", "client.key"}
    assert set(modes) == {f"{name}.{kind}" for name in ("ca", "server", "client") for kind in ("pem", "key")}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    printed = capsys.readouterr().out
    exports = [shlex.split(line)[1] for line in printed.splitlines() if line.startswith("export DGX_MUSIC_")]
    settings = dict(line.removeprefix("DGX_MUSIC_").split("=", 1) for line in exports)
    assert settings["GATEWAY_ADDRESS"] == "[fd00::7]:50050"
    # The lines are settings that work.
    values = {name.lower(): value for name, value in settings.items() if name.startswith("TLS")}
    assert Settings(**values).credentials().channel_credentials() is not None


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "tls", "dgx", as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert "dgx" in answer["hosts"]
    assert answer["client"] == {"DGX_MUSIC_TLS_CA": f"{tmp_path}/tls/ca.pem"}
    assert answer["server"]["DGX_MUSIC_TLS_KEY"] == f"{tmp_path}/tls/server.key"


def test_renewal_keeps_the_authority_and_the_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with clock_of_issue(datetime.now(UTC) - timedelta(days=360)):
        init(tmp_path, "dgx.example.org")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    init(tmp_path, "new.example.org", renew=True)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in after if after[name] == before[name]} == {"ca.pem", "ca.key"}
    server = certificate(tmp_path / "server.pem")
    assert {"dgx.example.org", "new.example.org", "localhost"} < set(hosts_of(server))
    verifier(tmp_path).build_server_verifier(x509.DNSName("new.example.org")).verify(server, [])
    assert server.not_valid_after_utc > datetime.now(UTC) + timedelta(days=300)
    key = load_pem_private_key((tmp_path / "server.key").read_bytes(), None)
    assert key.public_key() == server.public_key()
    assert "Renewed the certificates" in capsys.readouterr().out
    (tmp_path / "server.pem").unlink()
    init(tmp_path, "only.example.org", renew=True)
    assert "dgx.example.org" not in hosts_of(certificate(tmp_path / "server.pem"))


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "client.key").write_text("mine")
    with pytest.raises(CommandError, match=r"client.key already exists and will not be overwritten; renew .* --renew"):
        init(tmp_path)
    assert (tmp_path / "client.key").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("host", ["a b", "", "http://x", "10.0.0.1:50050", "-", "a..b"])
def test_host_that_is_none(tmp_path: Path, host: str) -> None:
    with pytest.raises(CommandError, match=r"--host: .* is neither the name nor the IP address of a host"):
        init(tmp_path, host)
    assert list(tmp_path.iterdir()) == []


def test_renewal_without_an_authority(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ca.key does not exist; without --renew, a new authority is made"):
        init(tmp_path, renew=True)
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / "ca.key").write_text("x")
    with pytest.raises(CommandError, match="are not an authority's"):
        init(tmp_path, renew=True)


def test_renewal_with_an_expired_authority(tmp_path: Path) -> None:
    with clock_of_issue(datetime.now(UTC) - timedelta(days=3700)):
        init(tmp_path)
    with pytest.raises(CommandError, match="has expired; make a new one in another folder"):
        init(tmp_path, renew=True)


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "server.key"
    with pytest.raises(CommandError, match=f"failed to write {missing}: No such file"):
        write_files({tmp_path / "server.pem": b"certificate", missing: b"key"})
    assert list(tmp_path.iterdir()) == []
