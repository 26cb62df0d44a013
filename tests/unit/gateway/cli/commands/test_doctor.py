"""What the doctor finds where something is missing, and what `models pull` says then."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.cli.commands.doctor import doctor
from gateway.cli.display.console import Screen
from gateway.cli.session.command_errors import FAILURE

INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'dgx-music[musicgen]'"
"""Into this Python, wherever the `pip` on PATH belongs."""


def examined(data_dir: Path, capsys: pytest.CaptureFixture[str], *, status: int = 0) -> dict[str, dict[str, str]]:
    """Findings by name."""
    assert doctor(data_dir, Screen(as_json=True)) == status
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["ok"] == (status == 0)
    return {finding["name"]: finding for finding in report["findings"]}


def test_without_torch_there_is_the_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examined(tmp_path, capsys)
    assert found["torch"]["state"] == "missing"
    assert found["torch"]["advice"] == INSTALL
    assert found["model"]["found"].startswith("sketch (default)")
    assert "musicgen-small" in found["musicgen"]["advice"]
    assert "made at first use" in found["database"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_used_and_a_full_disk_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    found = examined(tmp_path / "file", capsys, status=FAILURE)
    assert "--data-dir" in found["data directory"]["advice"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    found = examined(tmp_path, capsys, status=FAILURE)
    assert "0.10 GB free" in found["data directory"]["found"]


@pytest.mark.parametrize("engine", ["native", "audiocraft"])
def test_the_engine_that_is_set_and_what_it_needs_are_told(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "audiocraft":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("DGX_MUSIC_ENGINE", engine)
    is_set = engine == "audiocraft"
    found = examined(tmp_path, capsys, status=FAILURE if is_set else 0)
    assert found["engine"]["found"].startswith(engine)
    assert found["audiocraft"]["state"] == ("broken" if is_set else "missing")
    assert "make setup-audiocraft" in found["audiocraft"]["advice"]
    monkeypatch.setattr(metadata, "version", lambda name: "1")
    monkeypatch.setenv("DGX_MUSIC_PRECISION", "int8")
    found = examined(tmp_path, capsys, status=FAILURE if is_set else 0)
    assert found["audiocraft"]["state"] == "ok"
    assert found["engine"]["state"] == ("broken" if is_set else "ok")
    assert ("DGX_MUSIC_PRECISION" in found["engine"]["advice"]) == is_set
