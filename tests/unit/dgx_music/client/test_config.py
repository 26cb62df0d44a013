"""Settings of a client that can't be used name the argument, the variable or the key at fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgx_music import Client
from dgx_music.client.config import ClientConfig, load_config


@pytest.fixture(autouse=True)
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DGX_MUSIC_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    return path


def load(**arguments: str) -> ClientConfig:
    return load_config(arguments)


def test_default_is_the_server_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DGX_MUSIC_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load().address == "127.0.0.1:50050"
    (tmp_path / "dgx-music").mkdir()
    (tmp_path / "dgx-music/config.toml").write_text('gateway_address = "dgx:1"')
    assert load().address == "dgx:1"


def test_argument_precedes_environment_precedes_file(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_file.write_text('gateway_address = "file:1"\ntoken = "file"\nclient_name = "file"\n')
    assert (load().address, load().credentials.token) == ("file:1", "file")
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", "environment:1")
    monkeypatch.setenv("DGX_MUSIC_TOKEN", "environment")
    monkeypatch.setenv("DGX_MUSIC_CLIENT_NAME", "")  # As if it were not set.
    config = load(token="argument")
    assert (config.address, config.credentials.token, config.credentials.client_name) == (
        "environment:1",
        "argument",
        "file",
    )


def test_argument_token_precedes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(" secret \n")
    monkeypatch.setenv("DGX_MUSIC_TOKEN_FILE", str(tmp_path / "token"))
    assert load().credentials.metadata() == (("authorization", "Bearer secret"),)
    assert load(token="other").credentials.metadata() == (("authorization", "Bearer other"),)


def test_address_that_is_none_names_its_origin(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="address=http://dgx:50050: must not be a URL"):
        Client("http://dgx:50050")
    config_file.write_text('gateway_address = "dgx"')
    with pytest.raises(ValueError, match="gateway_address in the config file=dgx: must have a port; use dgx:50050"):
        load()
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", "50050")
    with pytest.raises(ValueError, match="DGX_MUSIC_GATEWAY_ADDRESS=50050: must have a host"):
        load()


def test_credentials_that_do_not_fit_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="tls_key needs TLS: set tls_ca too"):
        load(tls_key="client.key")
    with pytest.raises(ValueError, match="tls_certificate and tls_key belong together"):
        load(tls_ca="system", tls_certificate="client.pem")
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        load(tls_ca=str(tmp_path / "ca.pem"))
    monkeypatch.setenv("DGX_MUSIC_TOKEN", "a")
    monkeypatch.setenv("DGX_MUSIC_TOKEN_FILE", "b")
    with pytest.raises(ValueError, match="DGX_MUSIC_TOKEN and DGX_MUSIC_TOKEN_FILE are both set"):
        load()


def test_path_in_the_config_file_is_absolute(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("secret")
    config_file.write_text('token_file = "~/token"\ntls_ca = "system"\n')
    assert load().credentials.token_file == str(tmp_path / "token")
    config_file.write_text('token_file = "token"')
    with pytest.raises(ValueError, match="line 1: token_file must be an absolute path or begin with ~/, not 'token'"):
        load()


def test_token_that_cannot_be_sent_names_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^token: what should be a token is several lines"):
        load_config({"token": "one\ntwo"})
    file = tmp_path / "token"
    file.write_text("ü")
    monkeypatch.setenv("DGX_MUSIC_TOKEN_FILE", str(file))
    with pytest.raises(ValueError, match=r"^DGX_MUSIC_TOKEN_FILE: what should be"):
        load_config({})


def test_config_file_that_is_none_is_named(config_file: Path) -> None:
    config_file.write_text("gateway_address = dgx")
    with pytest.raises(ValueError, match=rf"{config_file}, line 1: is not valid TOML: Invalid value"):
        load()
    config_file.unlink()
    with pytest.raises(ValueError, match=r"config\.toml: this file does not exist"):
        load()
