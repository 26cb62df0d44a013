"""Every command has --json, so that a script can use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from gateway.cli.app import app

WITHOUT = {
    "serve": "runs until it is stopped; its log is JSON by DGX_MUSIC_LOG_FORMAT",
    "completion install": "sets up a shell for a person",
    "completion show": "prints a script for a shell",
    "http": "runs until it is stopped, as serve does",
    "studio": "runs until it is stopped, as serve does",
    "play": "has no result but sound",
    "mcp": "speaks JSON-RPC on standard input and output",
}
"""Command → why it has no --json."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if subcommands := getattr(command, "commands", None):
        for name, subcommand in subcommands.items():
            yield from commands(subcommand, (*path, name))
    else:
        yield " ".join(path), command


def test_every_command_prints_json() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert len(found) > 30
    lacking = {path for path, command in found.items() if not any("--json" in one.opts for one in command.params)}
    assert lacking <= set(WITHOUT)
    assert not {path for path in WITHOUT if path in found} - lacking
