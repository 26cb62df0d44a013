"""The help of every command, as a terminal of 80 columns shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from gateway.cli.app import app
from gateway.cli.display.help_types import leave_out_types

COLUMNS = 80
TYPE = re.compile(r"<\w+[^>]*>|\[\[|\.\.\.\]")
"""As in <bool>, <list[Path]>, [[TEXT]] and [[FILE]...]..."""


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from paths(subcommand, (*path, name))


def test_help_names_values_instead_of_types(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", COLUMNS)
    leave_out_types()
    command = typer.main.get_command(app)
    shown = {}
    for path in paths(command):
        command.main([*path, "--help"], prog_name="dgx-music", standalone_mode=False)
        shown[path] = capsys.readouterr().out
    assert len(shown) > 40
    assert "SECONDS" in shown["generate",]
    assert not {path: found for path, text in shown.items() if (found := TYPE.findall(text))}
    assert max(len(line) for text in shown.values() for line in text.splitlines()) == COLUMNS
