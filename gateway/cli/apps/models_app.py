"""The subcommands `dgx-music models …`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gateway.cli.options import AsJson, GlobalOptions, Yes, confirm, create_console, run
from gateway.embedded.service_set import MODELS

app = typer.Typer(
    help="List, show, download, convert and remove models. Without a subcommand, list them.",
    invoke_without_command=True,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the model, e.g. musicgen-small.", show_default=False)
]
ModelOrAdapter = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the model or the adapter.", show_default=False)
]
NewName = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the converted model. Default: the same name, which then stands for the converted model.",
        show_default=False,
    ),
]
StoredPrecisionOption = Annotated[
    Literal["fp32", "bf16", "fp16"] | None,
    typer.Option(
        "--precision",
        help="Precision of the language model's weights in the file: fp32, bf16 or fp16. Default: as they are.",
        show_default=False,
        show_choices=False,
        metavar="PRECISION",
    ),
]
MergedAdapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME[:SCALE]",
        help="Merge an installed LoRA adapter into the weights, at a scale of 1 unless given. May be given more "
        "than once.",
        show_default=False,
    ),
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
def show(name: ModelOrAdapter, as_json: AsJson = False) -> None:
    """Show what a model or an adapter is, what it can do, its licence, and where its files are."""
    from gateway.cli.commands import model_details

    console = create_console(as_json)
    run(lambda session: model_details.show_model(session, console, name), console, MODELS)


@app.command()
def convert(
    name: Name,
    new_name: NewName = "",
    precision: StoredPrecisionOption = None,
    adapter: MergedAdapters = None,
    as_json: AsJson = False,
) -> None:
    """Write a model to the data directory in the layout that loads fastest. The original stays where it is."""
    from gateway.cli.commands import model_conversion

    model_conversion.convert(name, new_name, precision, adapter or (), GlobalOptions.data_dir, create_console(as_json))


@app.command()
def pull(name: Name, as_json: AsJson = False) -> None:
    """Download a model and its text encoder from the Hugging Face hub. Prints the licence first."""
    from gateway.cli.commands import model_download

    model_download.pull(name, create_console(as_json))


@app.command()
def remove(name: ModelOrAdapter, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a model or an adapter in the data directory, or a model that `pull` downloaded.

    A running server unloads the model first.
    """
    from gateway.cli.commands import model_removal, model_unload

    model = model_removal.find_removable_model(name, GlobalOptions.data_dir)
    if not yes:
        confirm(f"Delete {name} ({model.size_bytes / 1e9:.2f} GB) from {model.place}?")
    model_unload.unload(name, GlobalOptions.data_dir)
    model.remove()
    # A request may have loaded it again in between; and the server now sees that it is no longer installed.
    model_unload.unload(name, GlobalOptions.data_dir)
    console = create_console(as_json)
    if console.as_json:
        console.print_object({"model": name, "is_installed": False})
    console.print_notice(f"deleted {name}{model.remark}")
