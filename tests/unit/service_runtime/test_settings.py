"""Settings that are not valid: one line that names what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service_runtime.settings import Settings, format_settings_error


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    return path


def problem() -> str:
    with pytest.raises(ValidationError) as caught:
        Settings()
    return format_settings_error(caught.value)


def test_invalid_value_names_where_it_stands(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('# mine\ngateway_address = "http://dgx:1"\n')
    in_file = f"{file}, line 2: gateway_address = http://dgx:1: must not be a URL; use dgx:1"
    assert problem() == in_file
    monkeypatch.setenv("DGX_MUSIC_GRACE_SECONDS", "-1")
    assert problem() == f"{in_file}; DGX_MUSIC_GRACE_SECONDS=-1: Input should be greater than or equal to 0"
    monkeypatch.setenv("DGX_MUSIC_GATEWAY_ADDRESS", "dgx")
    assert problem().startswith("DGX_MUSIC_GATEWAY_ADDRESS=dgx: ")
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"grace_seconds": "soon", "gateway_address": None})
    assert format_settings_error(caught.value).startswith("DGX_MUSIC_GRACE_SECONDS=soon: ")


def test_secrets_are_not_repeated(file: Path) -> None:
    file.write_text("token = 123456\n")
    assert problem() == f"{file}, line 1: token: Input should be a valid string"
