"""The subcommands of `dgx-music`. Each imports what it needs when it runs, so that --help responds at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.apps import (
    completion_app,
    config_app,
    db_app,
    editing_app,
    files_app,
    generation_app,
    history_app,
    listening_app,
    models_app,
    protocol_app,
    ray_app,
    service_app,
    tls_app,
    token_app,
)
from gateway.cli.apps.sessions import session_app
from gateway.cli.options import GlobalOptions

app = typer.Typer(
    name="dgx-music",
    help="Generate music from text on your own machine.",
    epilog="No server is needed: unless DGX_MUSIC_GATEWAY_ADDRESS is set, the services run within the command. "
    "Exit status: 0 done, 1 failed, 2 bad input, 3 done but the output is lost, 75 the server can't be reached or is "
    "busy: try again, 128 + N ended by signal N. `dgx-music doctor` says what to do next.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(generation_app.app)
app.add_typer(editing_app.app)
app.add_typer(listening_app.app)
app.add_typer(history_app.app)
app.add_typer(service_app.app)
app.add_typer(protocol_app.app)
app.add_typer(models_app.app, name="models")
app.add_typer(files_app.app, name="files")
app.add_typer(session_app.app, name="session")
app.add_typer(db_app.app, name="db")
app.add_typer(tls_app.app, name="tls")
app.add_typer(token_app.app, name="token")
app.add_typer(ray_app.app, name="ray")
app.add_typer(config_app.app, name="config")
app.add_typer(completion_app.app, name="completion")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        print(f"dgx-music {version('dgx-music')}")
        raise typer.Exit


@app.callback()
def _set_global_options(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Folder of the database and the audio files. Default: DGX_MUSIC_DATA_DIR, else the user data folder.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and print a traceback on errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    GlobalOptions.data_dir, GlobalOptions.debug = data_dir, debug
    GlobalOptions.subcommand = context.invoked_subcommand or ""
