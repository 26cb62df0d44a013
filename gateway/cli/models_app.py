"""`dgx-music models …`: the models there are, and getting more."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import AsJson, Everywhere, Yes, run, screen_of
from gateway.embedded.service_set import MODELS

app = typer.Typer(help="List the models there are, get more, remove them.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="E.g. musicgen-small.", show_default=False)]


@app.callback()
def _list_without_a_command(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(as_json)


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the models there are, and those that can be had."""
    from gateway.cli.commands import inspect

    screen = screen_of(as_json)
    run(lambda session: inspect.models(session, screen), screen, MODELS)


@app.command()
def pull(name: Name) -> None:
    """Download a MusicGen model, and the text encoder it needs, from the Hugging Face hub."""
    from gateway.cli.commands import model_download

    model_download.pull(name, screen_of())


@app.command()
def remove(name: Name, yes: Yes = False) -> None:
    """Delete what `pull` downloaded of a model; a server that is up lets go of it first."""
    from gateway.cli.commands import model_download, model_unload

    pulled = model_download.pulled(name)
    if not yes:
        typer.confirm(f"Delete {name}, {pulled.size_bytes / 1e9:.2f} GB in {pulled.repository}?", abort=True, err=True)
    model_unload.unload(name, Everywhere.data_dir)
    pulled.remove()
    model_unload.unload(
        name, Everywhere.data_dir
    )  # What was asked for in between; and the server sees that it is gone.
    screen_of().notice(f"deleted {name}; its text encoder stays in the Hugging Face cache, where others may use it")
