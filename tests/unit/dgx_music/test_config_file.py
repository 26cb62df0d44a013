"""The config file: where it is, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.config_file import (
    SECRET_NAMES,
    ConfigFileError,
    config_path,
    find_variable,
    parse_config,
    read_config_file,
    suggest,
)
from gateway.settings_catalog import CLASSES


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("content", "line", "way_out"),
    [
        ("\n  gatway_address = 1", 2, "gatway_address is not a setting; did you mean gateway_address?"),
        ('"xyzzy" = 1', 1, "xyzzy is not a setting; list them with `dgx-music config show`"),
        ("[gateway]\nx = 1", 1, "gateway is not a setting; settings must come before any [table]"),
    ],
)
def test_unknown_key_gets_a_suggestion(content: str, line: int, way_out: str, file: Path) -> None:
    with pytest.raises(ConfigFileError) as caught:
        parse_config(file, content.encode()).require_known(CLASSES)
    assert str(caught.value) == f"{file}, line {line}: {way_out}"


def test_missing_file_is_an_error_only_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigFileError, match=r"does not exist; create it with `dgx-music config set`, or unset DGX"):
        read_config_file()
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(tmp_path))
    with pytest.raises(ConfigFileError, match="can't be read: Is a directory"):
        read_config_file()
    monkeypatch.delenv("DGX_MUSIC_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_path() == tmp_path / "dgx-music/config.toml"
    assert read_config_file().values == {}


@pytest.mark.parametrize(
    ("content", "mode", "secret"),
    [
        ('token = "x"', 0o644, "token"),
        ('token = "x"', 0o640, "token"),
        ('token = "x"', 0o600, None),
        ('log_level = "info"', 0o644, None),
        ('database_url = "postgresql://me:pass@host/music"', 0o644, "database_url"),
        ('database_url = "sqlite:////a.db"', 0o644, None),
    ],
)
def test_secret_that_others_can_read_is_found(content: str, mode: int, secret: str | None, file: Path) -> None:
    file.write_text(content)
    file.chmod(mode)
    assert read_config_file().exposed_secret() == secret


@pytest.mark.parametrize("value", ["[" * 50_000, "9" * 5000])
def test_what_python_cannot_read_is_named(value: str, file: Path) -> None:
    file.write_text(f"lease_seconds = {value}")
    with pytest.raises(
        ConfigFileError, match=r"can't be used: (a number has thousands of digits|it is nested too deeply)"
    ):
        read_config_file()


def test_names_of_secrets_are_complete() -> None:
    secret = {name for name, owner in CLASSES.items() if "SecretStr" in str(owner.model_fields[name].annotation)}
    assert secret | {"database_url"} == SECRET_NAMES


def test_variables_are_found_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DGX_MUSIC_LISTEN", raising=False)
    assert find_variable("listen") is None
    monkeypatch.setenv("dgx_music_listen", "x")
    assert find_variable("listen") == "dgx_music_listen"
    monkeypatch.setenv("dgx_music_listen", "")
    assert find_variable("listen") is None
    assert suggest("gateway_addres", CLASSES) == "did you mean gateway_address?"
