"""`dgx-music completion`: Typer's scripts, with which a shell asks the command itself what can come next."""

from __future__ import annotations

from contextlib import suppress

import shellingham
from typer import _completion_shared

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

PROGRAM = "dgx-music"
VARIABLE = "_DGX_MUSIC_COMPLETE"
"""Environment variable by which Typer recognizes that a shell asks."""
SHELLS = ("bash", "zsh", "fish")


def resolve_shell(name: str | None) -> str:
    """Returns the shell that is named, or that runs this process. Raises CommandError if it is none of SHELLS."""
    if name is not None:
        return str(name)
    detected = ""
    with suppress(shellingham.ShellDetectionFailure):
        detected, _ = shellingham.detect_shell()
    if detected not in SHELLS:
        found = f"{detected} is not supported" if detected else "the shell of this session could not be detected"
        raise CommandError(f"SHELL: {found}; give one of {', '.join(SHELLS)}", BAD_INPUT)
    return detected


def script(shell: str) -> str:
    """Returns the script for the shell."""
    return _completion_shared.get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)


def install_script(shell: str) -> str:
    """Installs the script for the user, also if it is there already, and returns what to tell them. Raises OSError."""
    _, path = _completion_shared.install(shell=shell, prog_name=PROGRAM, complete_var=VARIABLE)
    return f"installed completion for {shell} in {path}; it works in new shells, or now after: exec {shell}"
