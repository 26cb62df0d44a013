"""The config file as a source of settings: its place below the environment, and its types."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from dgx_music.config_file import ConfigFileError
from generation_service.config import GenerationSettings
from service_runtime.settings import Settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.touch(0o600)
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    return path


def test_options_precede_environment_file_and_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('grace_seconds = 1\nlog_level = "error"\nmetrics_port = 1\nmax_waiting = 3\n')
    monkeypatch.setenv("DGX_MUSIC_METRICS_PORT", "2")
    monkeypatch.setenv("DGX_MUSIC_LOG_LEVEL", "")
    settings = GenerationSettings.model_validate({"grace_seconds": 5})
    assert (settings.grace_seconds, settings.metrics_port, settings.log_level) == (5, 2, "error")
    assert (settings.max_waiting, settings.max_concurrent_streams) == (3, 1024)
    assert "max_waiting" in settings.model_fields_set


def test_values_have_the_types_of_toml(file: Path, tmp_path: Path) -> None:
    file.write_text(
        f'reflection = false\nmodel_folders = ["{tmp_path}/a", "~/b"]\ntoken = "secret"\ndata_dir = "~/music"\n'
        'tls_ca = "~/ca.pem"\ngateway_address = ""\n'
    )
    settings = GenerationSettings()
    assert settings.reflection is False
    assert settings.model_folders == (tmp_path / "a", Path.home() / "b")
    assert settings.token == SecretStr("secret")
    assert settings.data_dir == Path.home() / "music"
    assert settings.tls_ca == str(Path.home() / "ca.pem")
    assert settings.gateway_address is None
    file.write_text(f'model_folders = "{tmp_path}/a:~/b"\ntls_ca = "system"\n')
    assert GenerationSettings().model_folders == (tmp_path / "a", Path.home() / "b")
    assert Settings().tls_ca == "system"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('#\ndata_dir = "music"', ", line 2: data_dir must be an absolute path or begin with ~/, not 'music'"),
        ('model_folders = ["/a", "b"]', ", line 1: model_folders must be an absolute path or begin with ~/, not 'b'"),
        ("gateway_address = dgx:1", ', line 1: is not valid TOML: Invalid value; text needs quotes, as in key = "'),
        ('log_level = "err', ": is not valid TOML: Unterminated string"),
        (b"log_level = '\xff'", ": is not UTF-8 text"),
    ],
)
def test_file_that_cannot_be_used_says_where_and_why(content: str | bytes, says: str, file: Path) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigFileError) as caught:
        GenerationSettings()
    assert str(caught.value).startswith(f"{file}{says}")
