"""The subcommands that serve what does not speak gRPC: http, mcp and studio."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import GlobalOptions, create_console, run
from gateway.embedded.service_set import ALL

app = typer.Typer()


@app.command()
def http(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on. Default: DGX_MUSIC_HTTP_LISTEN, else 127.0.0.1:8080.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the HTTP endpoints that clients of OpenAI, ElevenLabs, LocalAI and vLLM-Omni know, until Ctrl-C or SIGTERM.

    Uses the running server, or else runs the services itself. Requires the extra `http`.
    """
    from gateway.cli.commands.protocols import http_command

    settings = http_command.resolve_settings(GlobalOptions.data_dir, listen)
    run(lambda session: http_command.serve(session, settings), create_console(), ALL)


@app.command()
def mcp() -> None:
    """Serve the Model Context Protocol on standard input and output, so that an assistant can generate music.

    Uses the running server, or else runs the services itself. Requires the extra `mcp`.
    How to set up the assistant is in docs/mcp.md.
    """
    from gateway.cli.commands.protocols import mcp_command
    from gateway.cli.session.standard_streams import STANDARD_OUTPUT

    mcp_command.require_extra()
    run(mcp_command.serve, create_console(output=STANDARD_OUTPUT), ALL)


@app.command()
def studio(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to listen on. Default: DGX_MUSIC_STUDIO_LISTEN, else 127.0.0.1:8090.",
            show_default=False,
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in the browser.")] = False,
) -> None:
    """Serve the Studio, a page to generate, listen to and compare music, until Ctrl-C or SIGTERM.

    Uses the running server, or else runs the services itself. Requires the extra `studio`.
    """
    from gateway.cli.commands.protocols import studio_command

    settings = studio_command.resolve_settings(GlobalOptions.data_dir, listen)
    console = create_console()
    run(lambda session: studio_command.serve(session, settings, console, not no_open), console, ALL)
