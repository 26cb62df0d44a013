"""The subcommands for the services themselves: doctor and serve."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, ServiceArg, create_console

app = typer.Typer()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check Python, GPU, libraries, models, disk and services, and suggest how to fix problems.

    The exit status is 1 if something that is configured does not work.
    """
    from gateway.cli.commands import doctor

    raise typer.Exit(doctor.doctor(GlobalOptions.data_dir, create_console(as_json)))


@app.command()
def serve(
    service: Annotated[
        ServiceArg | None,
        typer.Argument(
            metavar="SERVICE",
            help="Run only storage, export, generation or gateway. Default: all of them in one process.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the services until Ctrl-C or SIGTERM."""
    from gateway.cli.commands import serve

    serve.serve(None if service is None else service.value, GlobalOptions.data_dir)
