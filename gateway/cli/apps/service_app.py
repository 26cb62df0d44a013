"""The subcommands for the services themselves: doctor, serve and top."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, ServiceArg, create_console, run
from gateway.embedded.service_set import NONE

app = typer.Typer()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, access, Python, GPU, libraries, models, sound card, disk, database and services; say what to do.

    The exit status is 1 if something that is configured does not work.
    """
    from gateway.cli.commands.setup import doctor

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
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICES",
            help="Devices to generate on: auto, all (every GPU), 0,1 (these GPUs), cpu, or cpu,cpu (two engines). "
            "Default: DGX_MUSIC_DEVICES, else auto, the first GPU or else the CPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the services until Ctrl-C or SIGTERM."""
    from gateway.cli.commands import serve

    serve.serve(None if service is None else service.value, GlobalOptions.data_dir, devices)


@app.command()
def top(
    once: Annotated[bool, typer.Option("--once", help="Print the current state and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a running server at work: its engines, their GPUs and the requests in them. q or Ctrl-C ends it.

    Refreshed every second, with --json as one object per line. Without a terminal, printed once.
    """
    from gateway.cli.commands import top

    console = create_console(as_json)
    run(lambda session: top.top(session, console, once=once), console, NONE)
