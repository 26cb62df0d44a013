"""The subcommands `dgx-music config …`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.options import AsJson, GlobalOptions, create_console


def _complete_key(incomplete: str) -> list[str]:
    from gateway.settings_catalog import CLASSES

    return [name for name in CLASSES if name.startswith(incomplete)]


app = typer.Typer(help="Show and change the settings: the config file, and what takes precedence over it.")

Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="Name of a setting, e.g. gateway_address.",
        show_default=False,
        autocompletion=_complete_key,
    ),
]


@app.command()
def show(as_json: AsJson = False) -> None:
    """List every setting with its value and where it came from. Secrets are masked."""
    from gateway.cli.commands.setup import config_values

    raise typer.Exit(config_values.show(create_console(as_json), GlobalOptions.data_dir))


@app.command()
def path(as_json: AsJson = False) -> None:
    """Print the path of the config file: DGX_MUSIC_CONFIG, or the default in the user's configuration folder."""
    from gateway.cli.commands.setup import config_changes

    raise typer.Exit(config_changes.print_path(create_console(as_json)))


@app.command(name="set")
def set_(
    key: Key,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE", help="Its value; - reads it from standard input, for secrets.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Set a value in the config file. Comments are kept, and only you can read the file."""
    from gateway.cli.commands.setup import config_changes

    raise typer.Exit(config_changes.set_value(create_console(as_json), key, value))


@app.command()
def unset(key: Key, as_json: AsJson = False) -> None:
    """Remove a value from the config file, so that the default applies again."""
    from gateway.cli.commands.setup import config_changes

    raise typer.Exit(config_changes.unset(create_console(as_json), key))
