"""`dgx-music`, the command line: every error is one clear line on standard error and a non-zero exit status."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

import typer.main
from typer.exceptions import TyperException

from gateway.cli.app import app

EVERYWHERE = "--data-dir", "--debug"
"""Options that may stand before the command or after it."""
INTERRUPTED = 130
"""128 + SIGINT."""


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A terminal that can't show a character is no reason to fail.
    arguments = sys.argv[1:] or ["--help"]
    try:
        status = run(arguments)
    except KeyboardInterrupt:
        status = _fail("interrupted", INTERRUPTED)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and gives its exit status."""
    try:
        for argument in arguments:
            argument.encode()
        status = typer.main.get_command(app)(
            _global_options_first(arguments), prog_name="dgx-music", standalone_mode=False
        )
    except UnicodeEncodeError:
        return _fail("error: the arguments are not valid UTF-8", 2)
    except TyperException as error:
        return _fail(f"error: {error.format_message().rstrip('.')}; --help tells more", error.exit_code)
    except typer.Abort:
        return _fail("error: nothing was done", 1)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)
    return status if isinstance(status, int) else 0


def _explain(error: Exception) -> int:
    from gateway.cli.session.command_errors import Interrupted, explain

    if isinstance(error, Interrupted):
        return _fail("interrupted", error.exit_status)
    line, status = explain(error)
    return _fail(f"error: {line}", status)


def _fail(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


def _global_options_first(arguments: Sequence[str]) -> list[str]:
    first: list[str] = []
    others: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            others += [argument, *left]
        elif argument.partition("=")[0] not in EVERYWHERE:
            others.append(argument)
        elif argument == "--data-dir":
            first += [argument, *islice(left, 1)]
        else:
            first.append(argument)
    if "" in first or "--data-dir=" in first:
        raise typer.BadParameter("--data-dir: is empty; name a folder")  # As a path it would be the current one.
    return [*first, *others]
