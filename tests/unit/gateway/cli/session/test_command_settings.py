"""The settings of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.config_file import ConfigFileError
from gateway.cli.session.command_errors import BAD_INPUT, describe_error
from gateway.cli.session.command_settings import how_to_unset, load_settings
from gateway.config import GatewaySettings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    return path


def test_option_precedes_the_file(file: Path) -> None:
    file.write_text('data_dir = "/a"\n')
    assert load_settings(GatewaySettings, None).data_dir == Path("/a")
    assert load_settings(GatewaySettings, Path("/b")).data_dir == Path("/b")


def test_key_of_another_service_is_known_and_of_none_is_not(file: Path) -> None:
    file.write_text("max_waiting = 1\n")
    load_settings(GatewaySettings, None)
    file.write_text("max_waitng = 1\n")
    with pytest.raises(ConfigFileError) as caught:
        load_settings(GatewaySettings, None)
    failure = describe_error(caught.value)
    assert failure.message == f"{file}, line 1: max_waitng is not a setting; did you mean max_waiting?"
    assert (failure.exit_status, failure.reason, failure.field) == (BAD_INPUT, "INVALID_CONFIG_FILE", "max_waitng")


def test_exposed_token_is_warned_of(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('token = "x"\n')
    file.chmod(0o644)
    load_settings(GatewaySettings, None)
    assert capsys.readouterr().err == (
        f"warning: {file} contains token and other users can read it; run: chmod 600 {file}\n"
    )
    file.chmod(0o600)
    load_settings(GatewaySettings, None)
    assert capsys.readouterr().err == ""


def test_way_to_unset_depends_on_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGX_MUSIC_LISTEN", raising=False)
    assert how_to_unset("listen") == "run: dgx-music config unset listen"
    monkeypatch.setenv("DGX_MUSIC_LISTEN", "x")
    assert how_to_unset("listen") == "unset DGX_MUSIC_LISTEN"
