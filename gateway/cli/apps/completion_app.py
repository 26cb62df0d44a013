"""The subcommands `dgx-music completion …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

app = typer.Typer(help="Complete commands and options with the Tab key.")


class Shell(StrEnum):
    """A shell, as the argument of `completion`."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


ShellArgument = Annotated[
    Shell | None,
    typer.Argument(
        metavar="SHELL", help="bash, zsh or fish. Default: the shell that runs this command.", show_default=False
    ),
]


@app.command()
def install(shell: ShellArgument = None) -> None:
    """Install completion for your shell: a script in your home folder, which its start-up file loads."""
    from gateway.cli.commands.setup import completion

    print(completion.install_script(completion.resolve_shell(shell)))


@app.command()
def show(shell: ShellArgument = None) -> None:
    """Print the completion script, to install it yourself."""
    from gateway.cli.commands.setup import completion

    print(completion.script(completion.resolve_shell(shell)))
