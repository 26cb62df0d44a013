"""What `dgx-music doctor` finds in settings, tokens and certificates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.cli.commands.setup.settings_check import check_access, check_settings
from gateway.config import GatewaySettings
from generation_service.models.finding import Finding
from tests.support.tls_files import make_tls_files


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in os.environ:
        if variable.startswith("DGX_MUSIC_"):
            monkeypatch.delenv(variable)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    path.touch(0o600)
    return path


def access(**settings: object) -> list[Finding]:
    return list(check_access(GatewaySettings.model_validate(settings)))


def test_config_file_is_described(file: Path) -> None:
    [empty] = check_settings()
    assert (empty.state, empty.found) == ("ok", f"none; `dgx-music config set KEY VALUE` creates {file}")
    file.write_text('token = "x"\ndevices = "cpu"\n')
    [filled] = check_settings()
    assert (filled.state, filled.found) == ("ok", f"{file} with 2 settings")
    file.chmod(0o644)
    [exposed] = check_settings()
    assert exposed.state == "broken"
    assert exposed.advice == f"chmod 600 {file}"
    file.write_text("devcies = 1\n")
    [unknown] = check_settings()
    assert (unknown.name, unknown.state) == ("settings", "broken")
    assert "did you mean devices?" in unknown.found


def test_misspelt_variables_are_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADRESS", "dgx:1")
    monkeypatch.setenv("DGX_MUSIC_FAILPOINT", "x")
    monkeypatch.setenv("dgx_music_devices", "cpu")
    [_, found] = check_settings()
    assert (found.found, found.state) == ("DGX_MUSIC_GATEWAY_ADRESS is not a setting", "broken")
    assert found.advice == "did you mean DGX_MUSIC_GATEWAY_ADDRESS?"


def test_token_is_not_sent_to_the_network_without_tls(file: Path, tmp_path: Path) -> None:
    ca = str(make_tls_files(tmp_path / "tls").ca)
    assert [one.state for one in access()] == ["ok"]
    assert [one.state for one in access(token="x", gateway_address="127.0.0.1:1")] == ["ok"]
    [found] = access(token="x", gateway_address="10.0.0.1:1")
    assert (found.state, found.found) == ("broken", "the token would be sent to 10.0.0.1:1 without encryption")
    [found] = access(token="x", gateway_address="10.0.0.1:1", tls_ca=ca)
    assert (found.state, found.found) == ("ok", f"a token is sent to servers; TLS with {ca}")


def test_files_that_cannot_be_read_are_named(file: Path) -> None:
    [found] = access(token_file="/none")
    assert found.state == "broken"
    assert "DGX_MUSIC_TOKEN_FILE=/none" in found.found


def test_certificate_and_key_must_belong_together(file: Path, tmp_path: Path) -> None:
    folder = make_tls_files(tmp_path / "tls").folder
    certificate, key, other_key = (str(folder / name) for name in ("server.pem", "server.key", "client.key"))
    assert access(tls_certificate=certificate, tls_key=key)[1].state == "ok"
    found = access(tls_certificate=certificate, tls_key=other_key)[1]
    assert (found.name, found.state) == ("certificate", "broken")
    assert found.found.endswith("not PEM, or the key of another certificate")
    assert access(tls_certificate=certificate, tls_key="/none")[1].found.endswith("No such file or directory")


def test_listening_on_the_network_needs_protection(file: Path) -> None:
    [_, found] = access(listen="0.0.0.0:50050")
    assert (found.name, found.state) == ("listen", "broken")
    assert len(access(listen="127.0.0.1:50050")) == 1
