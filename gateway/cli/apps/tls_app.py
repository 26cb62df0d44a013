"""The subcommands `dgx-music tls …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, create_console

if TYPE_CHECKING:
    from gateway.config import GatewaySettings

app = typer.Typer(help="Make certificates for a small network, and show them.", no_args_is_help=True)


@app.command()
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Where to write the files. Default: tls in the data directory.", show_default=False
        ),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME|IP",
            help="A name or IP address by which clients reach the server, besides localhost and this machine's name. "
            "May be given more than once.",
            show_default=False,
        ),
    ] = None,
    renew: Annotated[
        bool,
        typer.Option("--renew", help="Issue new certificates from the existing authority, for the same hosts."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a private certificate authority, and certificates for servers and clients; print what to set where."""
    _require_cryptography()
    from gateway.cli.commands.tls import tls_init, tls_show

    target = folder or tls_show.default_folder(_settings())
    raise typer.Exit(tls_init.init(target, hosts or (), create_console(as_json), renew=renew))


@app.command()
def show(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE|FOLDER",
            help="Certificates in PEM. Default: those in the settings, and those of `tls init`.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show certificates: their owners, hosts and expiry. The exit status is 1 if one has expired."""
    _require_cryptography()
    from gateway.cli.commands.tls import tls_show

    raise typer.Exit(tls_show.show(paths or (), _settings(), create_console(as_json)))


def _settings() -> GatewaySettings:
    from gateway.config import GatewaySettings

    return GatewaySettings.model_validate(
        {} if GlobalOptions.data_dir is None else {"data_dir": GlobalOptions.data_dir}
    )


def _require_cryptography() -> None:
    from importlib.util import find_spec

    from gateway.cli.session.command_errors import CommandError
    from service_runtime.optional_deps import install_extra_command

    if find_spec("cryptography") is None:
        raise CommandError(f"certificates need the library cryptography; run `{install_extra_command('tls')}`")
