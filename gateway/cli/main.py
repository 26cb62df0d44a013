"""The entry point of `dgx-music`: every error is one line on standard error and a non-zero exit status.

Signals are handled before the rest is imported, which takes a tenth of a second: hence the imports in functions.
"""

from __future__ import annotations

import os
import re
import sys
from functools import cache

from gateway.cli.signals.stop_signals import (
    Interrupted,
    exit_on_signal,
    ignore_signals,
    raise_on_signal,
    received_signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

GLOBAL_OPTIONS = "--data-dir", "--debug"
"""Options that may come before or after the subcommand."""
SECTION_OPTION = "--section"
COMPLETION_OPTIONS = "install_completion", "show_completion"
UNEXPECTED_ARGUMENT = "Got unexpected extra argument"
UNQUOTED = 'put a text with spaces in quotes, as in "house at 124 BPM", or see --help'
BAD_USAGE = "INVALID_ARGUMENT", "INVALID_USAGE"
INTERRUPTED = "CANCELLED", "INTERRUPTED"
"""Code and reason of an error, see `gateway.cli.session.command_errors.Failure`."""


def main() -> NoReturn:
    """Runs the command line of this process, and exits."""
    exit_on_signal()
    import atexit

    from gateway.cli.session.standard_streams import OutputLost, open_standard_streams
    from service_runtime.file_modes import limit_umask

    open_standard_streams()
    limit_umask()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # Its own lines would stand beside those of the command.
    arguments = sys.argv[1:] or ["--help"]
    atexit.register(ignore_signals)
    try:
        raise_on_signal()
        status = run(arguments)
        sys.stdout.flush()
        exit_on_signal()
    except OutputLost as error:
        status = _fail(arguments, str(error), error.exit_status, "ABORTED", "OUTPUT_LOST")
    except Interrupted as error:
        status = _fail(arguments, "interrupted", error.exit_status, *INTERRUPTED)
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    import typer
    from typer.exceptions import TyperException

    from gateway.cli.session.standard_streams import OutputLost

    try:
        for argument in arguments:
            argument.encode()
        command = _build_command()
        status = command(_global_options_first(_join_sections(arguments)), prog_name="dgx-music", standalone_mode=False)
    except UnicodeEncodeError:
        return _fail(arguments, "the arguments are not valid UTF-8", 2, *BAD_USAGE)
    except TyperException as error:
        problem = error.format_message().rstrip(".").replace(": Value error, ", ": ", 1)
        way_out = UNQUOTED if problem.startswith(UNEXPECTED_ARGUMENT) else "see --help"
        line = f"{problem}; {way_out}"
        return _fail(arguments, line, error.exit_code, *BAD_USAGE)
    except typer.Abort:
        return _fail(arguments, "aborted, nothing was changed", 1, "CANCELLED", "ABORTED")
    except OutputLost:
        raise
    except Exception as error:
        if number := received_signal():
            raise Interrupted(number) from error
        if _has_flag("--debug", arguments):
            import traceback

            from service_runtime.printable_text import make_printable

            print(make_printable(traceback.format_exc(), keep_lines=True), end="", file=sys.stderr)
        return _report(arguments, error)
    return status if isinstance(status, int) else 0


@cache
def _build_command() -> Callable[..., object]:
    import typer.main

    from gateway.cli.app import app
    from gateway.cli.display.help_types import leave_out_types

    leave_out_types()
    command = typer.main.get_command(app)
    # `dgx-music completion` does what these options do.
    command.params = [option for option in command.params if option.name not in COMPLETION_OPTIONS]
    return command


def _report(arguments: Sequence[str], error: Exception) -> int:
    from gateway.cli.session.command_errors import describe_error

    failure = describe_error(error)
    if _has_flag("--json", arguments):
        print(failure.to_json(), file=sys.stderr)
        return failure.exit_status
    return _fail(arguments, failure.message, failure.exit_status, failure.code, failure.reason)


def _fail(arguments: Sequence[str], line: str, status: int, code: str, reason: str) -> int:
    """Prints the error in the form that the arguments ask for, and returns the status."""
    from service_runtime.printable_text import make_printable, shorten_text

    line = shorten_text(line)
    if _has_flag("--json", arguments):
        from gateway.cli.session.command_errors import Failure

        print(Failure(line, status, code, reason).to_json(), file=sys.stderr)
    else:
        print(make_printable(line if reason == INTERRUPTED[1] else f"error: {line}"), file=sys.stderr)
    return status


def _has_flag(flag: str, arguments: Sequence[str]) -> bool:
    """Returns whether the flag is among the options. After "--" there are none."""
    from itertools import takewhile

    return flag in takewhile(lambda argument: argument != "--", arguments)


def _join_sections(arguments: Sequence[str]) -> list[str]:
    """Returns `--section 0:16 "calm piano"` as the one value that Typer knows: `--section "0:16 calm piano"`."""
    joined: list[str] = []
    for argument in arguments:
        follows_span = len(joined) > 1 and joined[-2] == SECTION_OPTION and not re.search(r"\s", joined[-1])
        if follows_span and not argument.startswith("--"):
            joined[-1] += f" {argument}"
        else:
            joined.append(argument)
    return joined


def _global_options_first(arguments: Sequence[str]) -> list[str]:
    """Moves the global options before the subcommand, the only place where Typer takes them."""
    from itertools import islice

    import typer

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
