"""The subcommands `dgx-music models …`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, Yes, confirm, create_console, run
from gateway.embedded.service_set import MODELS

app = typer.Typer(
    help="List, download and remove models. Without a subcommand, list them.", invoke_without_command=True
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the model, e.g. musicgen-small.", show_default=False)
]


@app.callback()
def _list_without_a_command(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_(as_json)


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List the installed models, and those available for download."""
    from gateway.cli.commands import inspect

    console = create_console(as_json)
    run(lambda session: inspect.models(session, console), console, MODELS)


@app.command()
def pull(name: Name, as_json: AsJson = False) -> None:
    """Download a MusicGen model and its text encoder from the Hugging Face hub."""
    from gateway.cli.commands import model_download

    model_download.pull(name, create_console(as_json))


@app.command()
def remove(name: Name, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a model that `pull` downloaded. A running server unloads it first."""
    from gateway.cli.commands import model_download, model_unload

    model = model_download.find_pulled_model(name)
    if not yes:
        confirm(f"Delete {name} ({model.size_bytes / 1e9:.2f} GB) from {model.repository}?")
    model_unload.unload(name, GlobalOptions.data_dir)
    model.remove()
    # A request may have loaded it again in between; and the server now sees that it is no longer installed.
    model_unload.unload(name, GlobalOptions.data_dir)
    console = create_console(as_json)
    if console.as_json:
        console.print_object({"model": name, "is_installed": False})
    console.print_notice(
        f"deleted {name}; its text encoder stays in the Hugging Face cache, where other models may use it"
    )
