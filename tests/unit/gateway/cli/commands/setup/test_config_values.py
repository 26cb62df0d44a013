"""`dgx-music config show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.invocation import run
from gateway.settings_catalog import CLASSES


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    monkeypatch.setenv("DGX_MUSIC_DEVICES", "cpu")
    path.write_text(
        'token = "dgxm_secret"\ndatabase_url = "postgresql://me:secret@host/music"\n'
        'devices = "0"\nmodel_folders = ["/a", "/b"]\n'
    )
    path.chmod(0o600)
    return path


def test_each_setting_has_its_value_and_source(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--json", "--data-dir", "/music"]) == 0
    out = capsys.readouterr().out
    assert "secret" not in out
    found: dict[str, dict[str, Any]] = {row.pop("name"): row for row in map(json.loads, out.splitlines())}
    assert list(found) == list(CLASSES)
    assert found["data_dir"] == {"value": "/music", "source": "option", "where": "--data-dir"}
    assert found["devices"] == {"value": "cpu", "source": "environment", "where": "DGX_MUSIC_DEVICES"}
    assert found["token"] == {"value": "********", "source": "file", "where": f"{file}:1"}
    assert found["database_url"]["value"] == "postgresql://me:***@host/music"
    assert found["model_folders"] == {"value": ["/a", "/b"], "source": "file", "where": f"{file}:4"}
    assert found["lease_seconds"] == {"value": 30.0, "source": "default", "where": ""}
    assert found["gateway_address"] == {"value": None, "source": "default", "where": ""}


def test_table_is_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"]) == 0
    captured = capsys.readouterr()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in captured.out.splitlines()}
    assert rows["token"] == "******** config file, line 1"
    assert rows["devices"] == "cpu DGX_MUSIC_DEVICES"
    assert rows["model_folders"] == "/a:/b config file, line 4"
    assert rows["reflection"] == "unset"
    assert rows["allow_insecure_listen"] == "false"
    assert rows["lease_seconds"] == "30"
    assert captured.err == f"config file: {file}\n"


def test_invalid_file_is_an_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("deviecs = 1\n")
    assert run(["config", "show"]) == 2
    assert capsys.readouterr().err == f"error: {file}, line 1: deviecs is not a setting; did you mean devices?\n"
