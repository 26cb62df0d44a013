"""The entry point of `dgx-music`: every error is one line on standard error and a non-zero exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

import typer.main
from typer.exceptions import TyperException

from gateway.cli.app import app
from gateway.cli.session.standard_streams import OutputLost, open_standard_streams
from service_runtime.file_modes import limit_umask

GLOBAL_OPTIONS = "--data-dir", "--debug"
"""Options that may come before or after the subcommand."""
INTERRUPTED_STATUS = 130
"""128 + SIGINT."""


def main() -> NoReturn:
    """Runs the command line of this process, and exits."""
    open_standard_streams()
    limit_umask()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Its own lines would stand beside those of the command.
    try:
        status = run(sys.argv[1:] or ["--help"])
        sys.stdout.flush()
    except OutputLost as error:
        status = _fail(f"error: {error}", error.exit_status)
    except KeyboardInterrupt:
        status = _fail("interrupted", INTERRUPTED_STATUS)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    try:
        for argument in arguments:
            argument.encode()
        status = typer.main.get_command(app)(
            _global_options_first(arguments), prog_name="dgx-music", standalone_mode=False
        )
    except UnicodeEncodeError:
        return _fail("error: the arguments are not valid UTF-8", 2)
    except TyperException as error:
        return _fail(f"error: {error.format_message().rstrip('.')}; see --help", error.exit_code)
    except typer.Abort:
        return _fail("error: aborted, nothing was changed", 1)
    except OutputLost:
        raise
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _report(error)
    return status if isinstance(status, int) else 0


def _report(error: Exception) -> int:
    from gateway.cli.session.command_errors import Interrupted, format_error

    if isinstance(error, Interrupted):
        return _fail("interrupted", error.exit_status)
    line, status = format_error(error)
    return _fail(f"error: {line}", status)


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


def _global_options_first(arguments: Sequence[str]) -> list[str]:
    """Moves the global options before the subcommand, the only place where Typer takes them."""
    first: list[str] = []
    others: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            others += [argument, *remaining]
        elif argument.partition("=")[0] not in GLOBAL_OPTIONS:
            others.append(argument)
        elif argument == "--data-dir":
            first += [argument, *islice(remaining, 1)]
        else:
            first.append(argument)
    if "" in first or "--data-dir=" in first:
        # An empty path would be the current folder.
        raise typer.BadParameter("--data-dir: must not be empty; give a folder")
    return [*first, *others]
