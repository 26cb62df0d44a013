"""What the commands that edit earlier music say about their defaults."""

from __future__ import annotations

import pytest
import typer

from gateway.cli.apps import editing_app, generation_app

SAMPLING = ("temperature", "top_k", "top_p", "guidance")


def helps(app: typer.Typer, command: str) -> dict[str, str]:
    group = typer.main.get_group(app)
    return {parameter.name: getattr(parameter, "help", "") for parameter in group.commands[command].params}


@pytest.mark.parametrize("command", ["extend", "repaint", "variations"])
def test_sampling_is_that_of_the_source_by_default(command):
    shown = helps(editing_app.app, command)
    generate = helps(generation_app.app, "generate")
    for name in SAMPLING:
        assert shown[name].endswith("Default: that of the source.")
        assert generate[name].endswith("Default: set by the model.")
