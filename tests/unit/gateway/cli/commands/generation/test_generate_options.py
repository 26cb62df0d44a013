"""Resolving --model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.commands.generation.generate_options import resolve_model
from gateway.cli.session.command_errors import CommandError


def test_model_is_resolved_as_name_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("mine") == ("mine", None)
    assert resolve_model("./mine") == resolve_model(f"{folder}/") == ("mine", folder)
    (folder / "state_dict.bin").touch()
    assert resolve_model("mine") == ("mine", folder)
    with pytest.raises(CommandError, match="does not exist"):
        resolve_model("./other")


def test_empty_model_is_default_even_in_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state_dict.bin").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("") == ("", None)
    assert resolve_model(".") == (tmp_path.name, tmp_path)
