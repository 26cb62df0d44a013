"""`dgx-music tls …` as it is typed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from gateway.cli.invocation import run


def test_made_in_the_data_directory_and_shown_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir = ["--data-dir", str(tmp_path)]
    assert run([*data_dir, "tls", "init", "--host", "dgx.example.org", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == f"{tmp_path}/tls"
    assert run([*data_dir, "tls", "init"]) == 1
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path}/tls/ca.pem already exists and will not be overwritten"
    )
    assert run([*data_dir, "tls", "init", "--renew"]) == 0
    assert "dgx.example.org" in capsys.readouterr().out
    assert run([*data_dir, "tls", "show"]) == 0
    assert "dgx.example.org" in capsys.readouterr().out
    assert run(["tls", "init", str(tmp_path / "x"), "--host", "a b"]) == 2
    assert "--host: 'a b' is neither" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["init", "show"])
def test_missing_library_is_named(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(["tls", command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: certificates need the library cryptography; run `")
    assert "dgx-music[tls]" in error
