"""What is meant by --model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.commands.generate import which_model
from gateway.cli.session.command_errors import CommandError


def test_a_model_is_a_name_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert which_model("mine") == ("mine", None)
    assert which_model("./mine") == which_model(f"{folder}/") == ("mine", folder)
    (folder / "state_dict.bin").touch()
    assert which_model("mine") == ("mine", folder)
    with pytest.raises(CommandError, match="no folder"):
        which_model("./other")


def test_no_model_is_the_default_one_wherever_the_command_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state_dict.bin").touch()
    monkeypatch.chdir(tmp_path)
    assert which_model("") == ("", None)
    assert which_model(".") == (tmp_path.name, tmp_path)
