"""The subcommands `dgx-music ray …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, create_console

app = typer.Typer(
    help="Run the services on a Ray cluster: workers on its GPUs and, if wanted, the other services on its nodes. "
    "Requires the extra `ray`.",
    no_args_is_help=True,
)

RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Address of the cluster's head. Default: RAY_ADDRESS, else the cluster that this machine is part of.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str, typer.Option(metavar="NAME", help="Namespace of the actors, one for each deployment on the same cluster.")
]
DEFAULT_NAMESPACE = "dgx-music"


class HeadService(StrEnum):
    """A service that can run on the head node."""

    STORAGE = "storage"
    EXPORT = "export"
    GATEWAY = "gateway"


@app.command()
def up(
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of workers. Default: one for each GPU of the cluster; with --gpus-per-worker 0, one for each "
            "node.",
            show_default=False,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option(metavar="X", min=0, help="GPUs of a worker, with an engine on each; 0 for the CPU.")
    ] = 1.0,
    cpus_per_worker: Annotated[
        float, typer.Option(metavar="X", min=0, help="CPUs that Ray reserves for a worker.")
    ] = 1.0,
    head_services: Annotated[
        list[HeadService] | None,
        typer.Option(
            "--with",
            metavar="SERVICE",
            help="Also run storage, export or gateway on the head node. May be given more than once.",
            show_default=False,
        ),
    ] = None,
    export_per_node: Annotated[
        bool,
        typer.Option(
            "--export-per-node",
            help="Also run an export server on each node, beside its workers. Needs object storage.",
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=65000, help="Port of the first worker on a node; the others have those after it."
        ),
    ] = 50061,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long to wait until all servers are SERVING.")
    ] = 600.0,
    address: RayAddress = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    as_json: AsJson = False,
) -> None:
    """Start what is missing, stop workers that are too many, and wait until all servers are SERVING.

    Servers that run already stay as they are; those with other settings than now are replaced one after the other.
    """
    from gateway.cli.commands.cluster import ray_commands
    from gateway.cli.session.command_errors import BAD_INPUT, CommandError
    from gateway.ray.placement import PlacementOptions

    if gpus_per_worker > 1 and gpus_per_worker != int(gpus_per_worker):
        raise CommandError(f"--gpus-per-worker: must be a whole number above 1, not {gpus_per_worker:g}", BAD_INPUT)
    options = PlacementOptions(
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        head_services=[service.value for service in head_services or ()],
        export_per_node=export_per_node,
        first_port=port,
    )
    console = create_console(as_json)
    raise typer.Exit(ray_commands.up(console, address, namespace, options, timeout, GlobalOptions.data_dir))


@app.command()
def status(address: RayAddress = None, namespace: Namespace = DEFAULT_NAMESPACE, as_json: AsJson = False) -> None:
    """List the servers with their nodes, health and restarts. The exit status is 1 unless all are SERVING."""
    from gateway.cli.commands.cluster import ray_commands

    raise typer.Exit(ray_commands.status(create_console(as_json), address, namespace))


@app.command()
def down(address: RayAddress = None, namespace: Namespace = DEFAULT_NAMESPACE, as_json: AsJson = False) -> None:
    """Drain and stop all servers. Generations that are not finished go back to the queue."""
    from gateway.cli.commands.cluster import ray_commands

    raise typer.Exit(ray_commands.down(create_console(as_json), address, namespace, GlobalOptions.data_dir))
