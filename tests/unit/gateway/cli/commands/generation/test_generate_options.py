"""Resolving --model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.commands.generation.generate_options import GenerateOptions, resolve_model
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


def test_duration_is_left_to_the_server() -> None:
    assert [one.duration_seconds for one in GenerateOptions(prompt="x").build_requests()] == [0.0]
    assert [one.duration_seconds for one in GenerateOptions(prompt="x", loop="2bars").build_requests()] == [0.0]
    (both,) = GenerateOptions(prompt="x", loop="2bars", duration=4.0).build_requests()
    assert both.duration_seconds == 4.0
    with pytest.raises(CommandError, match=r"--duration: must be 0.1 to 3600 s, not 0"):
        GenerateOptions(prompt="x", duration=0.0)


def test_continue_seconds_need_a_source() -> None:
    with pytest.raises(CommandError, match="only be used together with --continue"):
        GenerateOptions(prompt="x", continue_seconds=5.0).parse_sources()


def test_options_are_checked_before_a_server_is_needed() -> None:
    with pytest.raises(CommandError, match="--section"):
        GenerateOptions(prompt="x", sections=["8 calm"]).parse_sources()
    with pytest.raises(CommandError, match="--bars"):
        GenerateOptions(prompt="x", loop="8 beats").parse_sources()
